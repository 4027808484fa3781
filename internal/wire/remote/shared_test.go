//go:build linux

package remote_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/arena"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/remote"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
)

// sizes are those of bodies around the edges of buffers, places and frames.
func sizes() []int {
	var out []int
	for _, n := range []int{1, 16 << 10, 64 << 10, wire.MaxFrame, 1 << 20, 3*wire.MaxFrame + 17} {
		out = append(out, n-1, n, n+1)
	}
	return out
}

// bodyFor returns one of three kinds of body of n octets.
func bodyFor(seed, n int) *message.Body {
	switch seed % 3 {
	case 0:
		return message.BodyOf(patternOf(seed, n))
	case 1:
		return message.NewBody(&pattern{seed: seed, n: n}, int64(n), nil)
	}
	return message.NewBody(&pattern{seed: seed, n: n}, -1, nil)
}

// However many places are shared, bodies arrive as they were: in places, in
// frames, and in frames that have some of both.
func TestBodiesInSharedMemory(t *testing.T) {
	t.Parallel()
	const rounds = 120
	sizes := sizes()
	sizeOf := func(n int) int { return sizes[n%len(sizes)] }
	for _, places := range []int{0, 1, 2, 3, arena.Most} {
		t.Run(fmt.Sprintf("fetched, %d places", places), func(t *testing.T) {
			t.Parallel()
			conn, _ := connectSharing(t, places, sourceOf(wire.Session{Fetch: bodies(func(id message.ID) *message.Body {
				return bodyFor(int(id.UID), sizeOf(int(id.UID)))
			})}))
			o, err := conn.OpenSource(t.Context(), remote.Spec{})
			if err != nil {
				t.Fatal(err)
			}
			next := 1
			for f, err := range o.Source.Fetch(t.Context(), source.FetchRequest{Needs: message.NeedBody, IDs: uids(rounds, 7)}) {
				if err != nil {
					t.Fatal(err)
				}
				if err := same(f.Message.Body, next, sizeOf(next)); err != nil {
					t.Errorf("message %d of %d octets: %v", next, sizeOf(next), err)
				}
				next++
			}
			if next != rounds+1 {
				t.Errorf("%d messages, want %d", next-1, rounds)
			}
		})
		t.Run(fmt.Sprintf("put, %d places", places), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			next := 0
			conn, _ := connectSharing(t, places, sinkOf(wire.Session{Write: func(_ context.Context, m *message.Message) (string, int64, error) {
				mu.Lock()
				defer mu.Unlock()
				next++
				return "", 1, same(m.Body, next, sizeOf(next))
			}}))
			s, err := conn.OpenSink(t.Context(), remote.Spec{}, sink.State{})
			if err != nil {
				t.Fatal(err)
			}
			lane, err := s.Lane(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := 1; i <= rounds; i++ {
				m := &message.Message{Body: bodyFor(i, sizeOf(i))}
				if err := lane.Put(t.Context(), m, func(_ sink.Receipt, err error) {
					if err != nil {
						t.Errorf("message %d of %d octets: %v", i, sizeOf(i), err)
					}
				}); err != nil {
					t.Fatal(err)
				}
			}
			if err := lane.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Streams that are broken off anywhere leave no place behind: a process that
// serves thousands of accounts would come to have none.
func TestPlacesComeBack(t *testing.T) {
	t.Parallel()
	const places = 16
	conn, plugin := connectSharing(t, places, sourceOf(wire.Session{Fetch: bodies(func(id message.ID) *message.Body {
		return bodyFor(int(id.UID), 100_000)
	})}))
	o, err := conn.OpenSource(t.Context(), remote.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		ctx, cancel := context.WithCancel(t.Context())
		left := i % 7
		for f, err := range o.Source.Fetch(ctx, source.FetchRequest{Needs: message.NeedBody, IDs: uids(100, 7)}) {
			if err != nil {
				break // cancelled
			}
			if left--; left < 0 && i%2 == 0 {
				break
			} else if left < 0 {
				cancel()
			}
			if i%3 == 0 {
				_ = same(f.Message.Body, int(f.ID.UID), 100_000)
			}
		}
		cancel()
	}
	// A stream ends at its two ends one after the other.
	deadline := time.Now().Add(time.Minute)
	for {
		var got []arena.Place
		for p := plugin.Get(); p.OK(); p = plugin.Get() {
			got = append(got, p)
		}
		for _, p := range got {
			p.Free()
		}
		if len(got) == places {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d places are free", len(got), places)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// arenasOf returns memory that two sides share, mapped twice as by two
// processes.
func arenasOf(t testing.TB, places int) (host, plugin *arena.Arena) {
	t.Helper()
	host, file, err := arena.New(places)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if plugin, err = arena.Open(fd); err != nil {
		t.Fatal(err)
	}
	return host, plugin
}

// connectSharing is connect with so many places, and returns the plugin's view
// of them.
func connectSharing(t *testing.T, places int, author wire.Author) (*remote.Conn, *arena.Arena) {
	t.Helper()
	var host, plugin *arena.Arena
	if places > 0 {
		host, plugin = arenasOf(t, places)
	}
	return connectWith(t, author, wire.NewMemory(poisoned{wire.NewPool()}, host), wire.NewMemory(poisoned{wire.NewPool()}, plugin), nil), plugin
}
