package engine

import (
	"context"
	"runtime"
	"slices"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
)

// TestAListingGoesFirst: one fetch gives its lane to a listing that waits, and
// only one; those who would fetch wait until the listing has it.
func TestAListingGoesFirst(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := newLanes(func() int { return 2 })
	for range 2 {
		if err := l.acquire(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if l.give() {
		t.Fatal("a lane is given away that nobody waits for")
	}
	order := make(chan string, 2)
	got := make(chan bool)
	go func() {
		_ = l.acquireToList(ctx)
		order <- "list"
		<-got
		l.release()
	}()
	for !l.waits() {
		runtime.Gosched()
	}
	go func() {
		_ = l.acquire(ctx)
		order <- "fetch"
	}()
	given := 0
	for range 2 {
		if l.give() {
			given++
		}
	}
	if given != 1 {
		t.Errorf("%d fetches end for one listing, want 1", given)
	}
	l.release()
	if first := <-order; first != "list" {
		t.Errorf("%s came first", first)
	}
	close(got)
	if second := <-order; second != "fetch" {
		t.Errorf("%s came second", second)
	}
}

// waits reports whether a listing waits for a lane.
func (l *lanes) waits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.listing > 0
}

// TestBatches: large where the server told the sizes, small where it didn't,
// and the last of a mailbox spread over the lanes.
func TestBatches(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		messages, octets int64
		fetched, came    int64
		waiting, lanes   int
		want             []int // batches, in order
	}{
		"nothing known":                {messages: -1, octets: -1, waiting: 100, lanes: 2, want: []int{16, 16, 16, 16, 16, 16, 4}},
		"small, as the server says":    {messages: 4000, octets: 16 << 20, waiting: 4000, lanes: 2, want: []int{512, 512, 512, 512, 512, 512, 464, 232, 128, 104}},
		"small, one lane":              {messages: 600, octets: 2 << 20, waiting: 600, lanes: 1, want: []int{512, 88}},
		"large, as the server says":    {messages: 4, octets: 100 << 20, waiting: 4, lanes: 2, want: []int{1, 1, 1, 1}},
		"larger than the server's sum": {messages: 1000, octets: 1000, fetched: 2, came: 8 << 20, waiting: 3, lanes: 1, want: []int{1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(nil, message.Mailbox{Name: "INBOX", State: message.MailboxState{Messages: tc.messages, Bytes: tc.octets}})
			b.fetched, b.octets = tc.fetched, tc.came
			q := newQueue()
			q.push(b, make([]*item, tc.waiting))
			g := q.next(context.Background())
			var got []int
			for {
				n := len(q.take(g, b.batch(), tc.lanes))
				if n == 0 {
					break
				}
				got = append(got, n)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("batches of %v, want %v", got, tc.want)
			}
		})
	}
}
