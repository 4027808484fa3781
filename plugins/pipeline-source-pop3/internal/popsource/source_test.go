package popsource

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/popscript"
)

// plainConfig is a config for a server of the tests without TLS.
func plainConfig(address string) Config {
	return Config{Connections: 1, Account: mailnet.Account{
		Address: address, Security: mailnet.None, Username: "alice", Password: spec.Plain(dovecot.Password),
		Timeouts: mailnet.Timeouts{Connect: 5 * time.Second, Read: 20 * time.Second, Write: 20 * time.Second},
	}}
}

func openSource(t testing.TB, c Config) *Source {
	t.Helper()
	o, err := openWith(t, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Source.Close() })
	s := o.Source.(*Source)
	s.rest = 10 * time.Millisecond
	return s
}

func openWith(t testing.TB, c Config) (source.Opened, error) {
	return Opener(mailnet.NewTokens())(t.Context(), c, source.Env{Name: "alice", Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
}

// openQuietly opens a source whose log nobody reads.
func openQuietly(ctx context.Context, c Config) (source.Opened, error) {
	return Opener(mailnet.NewTokens())(ctx, c, source.Env{Name: "alice"})
}

// testLog shows the source's log with the test.
type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func list(t testing.TB, s *Source, req source.ListRequest) (out []message.Summary) {
	t.Helper()
	if req.Mailbox == "" {
		req.Mailbox = inbox
	}
	for sum, err := range s.List(t.Context(), req) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		out = append(out, sum)
	}
	return out
}

func idsOf(sums []message.Summary) (ids []message.ID) {
	for _, s := range sums {
		ids = append(ids, s.ID)
	}
	return ids
}

func mailbox(t testing.TB, s *Source) (m message.Mailbox) {
	t.Helper()
	n := 0
	for box, err := range s.Mailboxes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		m = box
		n++
	}
	if n != 1 {
		t.Fatalf("%d mailboxes, want 1", n)
	}
	return m
}

// answers is what Fetch made of ids: octets or an error for each.
type answers struct {
	octets map[message.ID]string
	errs   map[message.ID]error
	err    error // terminal
}

// fetch fetches ids and checks that each is answered exactly once.
func fetch(ctx context.Context, t testing.TB, s *Source, needs message.Needs, ids []message.ID, batch int) answers {
	t.Helper()
	a := answers{octets: map[message.ID]string{}, errs: map[message.ID]error{}}
	for got, err := range s.Fetch(ctx, source.FetchRequest{Mailbox: inbox, Needs: needs | message.NeedBody, IDs: slices.Chunk(ids, batch)}) {
		if err != nil {
			a.err = err
			break
		}
		_, twice := a.octets[got.ID]
		if _, failed := a.errs[got.ID]; twice || failed {
			t.Errorf("%s is answered twice", got.ID)
		}
		if got.Err != nil {
			a.errs[got.ID] = got.Err
			continue
		}
		b, err := io.ReadAll(got.Message.Body)
		if err != nil {
			a.errs[got.ID] = err
			continue
		}
		a.octets[got.ID] = string(b)
	}
	if a.err == nil {
		for _, id := range ids {
			if _, ok := a.octets[id]; !ok && a.errs[id] == nil {
				t.Errorf("%s is not answered", id)
			}
		}
	}
	return a
}

// sample is a small message.
func sample(i int) string {
	return fmt.Sprintf("From: a%d@example.com\r\nTo: b@example.com\r\nSubject: message %d\r\nMessage-ID: <%d@example.com>\r\n\r\nText %d.\r\n.\r\n..\r\nend\r\n", i, i, i, i)
}

func samples(n int) (out []popscript.Message) {
	for i := 1; i <= n; i++ {
		out = append(out, popscript.Message{UIDL: fmt.Sprintf("u%05d", i), Raw: sample(i)})
	}
	return out
}

// TestScripted: the whole way on a correct server.
func TestScripted(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: samples(700)})
	s := openSource(t, plainConfig(server.Addr))
	m := mailbox(t, s)
	if m.Name != "INBOX" || !m.Selectable || m.State.Messages != 700 || m.State.Bytes != octetsOf(700) || m.State.Content == "" {
		t.Errorf("the mailbox is %+v", m)
	}
	var st message.MailboxState
	sums := list(t, s, source.ListRequest{Needs: message.NeedSize | message.NeedHeaders, State: func(x message.MailboxState) { st = x }})
	if !reflect.DeepEqual(st, m.State) {
		t.Errorf("the state of the listing is %+v, of the mailbox %+v", st, m.State)
	}
	if len(sums) != 700 {
		t.Fatalf("%d messages are listed, want 700", len(sums))
	}
	for i, sum := range sums {
		want := message.ID{Mailbox: "INBOX", UIDL: fmt.Sprintf("u%05d", i+1)}
		if sum.ID != want || sum.Size != int64(len(sample(i+1))) || sum.Header.Subject() != fmt.Sprintf("message %d", i+1) || sum.SequenceNumber != 0 {
			t.Fatalf("summary %d is %+v, want id %s", i, sum, want)
		}
	}
	a := fetch(t.Context(), t, s, message.NeedHeaders|message.NeedSize, idsOf(sums), 64)
	if a.err != nil || len(a.errs) > 0 {
		t.Fatal(a.err, a.errs)
	}
	for i, sum := range sums {
		if a.octets[sum.ID] != sample(i+1) {
			t.Fatalf("message %d is %q", i+1, a.octets[sum.ID])
		}
	}
	s.Close()
	for _, c := range server.Commands() {
		if verb, _, _ := strings.Cut(c, " "); slices.Contains([]string{"QUIT", "DELE"}, verb) {
			t.Errorf("%s was sent (I7)", c)
		}
	}
}

func octetsOf(n int) (total int64) {
	for i := 1; i <= n; i++ {
		total += int64(len(sample(i)))
	}
	return total
}

// TestPages: pages, both orders, ids and limits cut the same listing.
func TestPages(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: samples(10)})
	s := openSource(t, plainConfig(server.Addr))
	id := func(n int) message.ID { return message.ID{Mailbox: inbox, UIDL: fmt.Sprintf("u%05d", n)} }
	after := id(4)
	for _, tt := range []struct {
		name string
		req  source.ListRequest
		want []int
	}{
		{"all", source.ListRequest{}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"newest", source.ListRequest{Newest: true, Limit: 3}, []int{10, 9, 8}},
		{"page", source.ListRequest{After: &after, Limit: 2}, []int{5, 6}},
		{"page, newest", source.ListRequest{After: &after, Newest: true}, []int{3, 2, 1}},
		{"third page", source.ListRequest{Skip: 6, Limit: 3}, []int{7, 8, 9}},
		{"third page, newest", source.ListRequest{Skip: 6, Limit: 3, Newest: true}, []int{4, 3, 2}},
		{"behind the last page", source.ListRequest{Skip: 10, Limit: 3}, nil},
		{"headers of the second page", source.ListRequest{Skip: 2, Limit: 2, Needs: message.NeedHeaders}, []int{3, 4}},
		{"ids", source.ListRequest{IDs: []message.ID{id(9), id(2), id(99)}}, []int{2, 9}},
		{"no ids", source.ListRequest{IDs: []message.ID{}}, nil},
		{"headers of a page", source.ListRequest{After: &after, Limit: 2, Needs: message.NeedHeaders}, []int{5, 6}},
	} {
		var got []int
		for _, sum := range list(t, s, tt.req) {
			var n int
			fmt.Sscanf(sum.ID.UIDL, "u%d", &n)
			got = append(got, n)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	for _, err := range s.List(t.Context(), source.ListRequest{Mailbox: "Sent"}) {
		if !fault.Is(err, fault.Gone) {
			t.Errorf("a mailbox that isn't there: %v", err)
		}
	}
}

// TestSelect: by unique id and by number.
func TestSelect(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: samples(10)})
	for _, tt := range []struct {
		name   string
		choose Select
		want   []string
	}{
		{"unique ids", Select{UIDLs: []string{"u00003", "u00007", "none"}}, []string{"u00003", "u00007"}},
		{"numbers", Select{Sequence: "1:2,9:*"}, []string{"u00001", "u00002", "u00009", "u00010"}},
		{"both", Select{UIDLs: []string{"u00003", "u00010"}, Sequence: "*"}, []string{"u00010"}},
		{"reversed", Select{Sequence: "*:9"}, []string{"u00009", "u00010"}},
	} {
		c := plainConfig(server.Addr)
		c.Select = tt.choose
		s := openSource(t, c)
		var got []string
		for _, sum := range list(t, s, source.ListRequest{}) {
			got = append(got, sum.ID.UIDL)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
