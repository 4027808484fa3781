package imapsource

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/dovecot"
)

// plainConfig is a config for a server of the tests without TLS.
func plainConfig(address string) Config {
	return Config{Connections: 2, Account: mailnet.Account{
		Address: address, Security: mailnet.None, Username: "alice", Password: spec.Plain(dovecot.Password),
		Timeouts: mailnet.Timeouts{Connect: 5 * time.Second, Read: 20 * time.Second, Write: 20 * time.Second},
	}}
}

func openSource(t testing.TB, c Config) *Source {
	t.Helper()
	o, err := openWith(t, c, source.Env{Name: "alice", Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Source.Close() })
	return o.Source.(*Source)
}

func openWith(t testing.TB, c Config, env source.Env) (source.Opened, error) {
	return Opener(mailnet.NewTokens())(t.Context(), c, env)
}

// testLog shows the source's log with the test.
type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func mailboxNames(t testing.TB, s *Source) (names []string) {
	t.Helper()
	for m, err := range s.Mailboxes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, m.Name)
	}
	return names
}

func list(t testing.TB, s *Source, req source.ListRequest) (out []message.Summary) {
	t.Helper()
	for sum, err := range s.List(t.Context(), req) {
		if err != nil {
			t.Fatalf("list %s: %v", req.Mailbox, err)
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

// batches cuts ids into batches of n.
func batches(ids []message.ID, n int) iter.Seq[[]message.ID] { return slices.Chunk(ids, n) }

// answers is what Fetch made of ids: octets or an error for each.
type answers struct {
	octets  map[uint32][]byte
	errs    map[uint32]error
	instead map[uint32][]byte
	err     error // terminal
}

// fetch fetches ids and checks that each is answered exactly once.
func fetch(ctx context.Context, t testing.TB, s *Source, mailbox string, needs message.Needs, ids []message.ID, batch int) answers {
	t.Helper()
	a := answers{octets: map[uint32][]byte{}, errs: map[uint32]error{}, instead: map[uint32][]byte{}}
	for got, err := range s.Fetch(ctx, source.FetchRequest{Mailbox: mailbox, Needs: needs | message.NeedBody, IDs: batches(ids, batch)}) {
		if err != nil {
			a.err = err
			break
		}
		_, twice := a.octets[got.ID.UID]
		if _, failed := a.errs[got.ID.UID]; twice || failed {
			t.Errorf("%s is answered twice", got.ID)
		}
		if got.Err != nil {
			a.errs[got.ID.UID], a.instead[got.ID.UID] = got.Err, got.Instead
			continue
		}
		b, err := io.ReadAll(got.Message.Body)
		if err != nil {
			a.errs[got.ID.UID] = err
			continue
		}
		a.octets[got.ID.UID] = b
	}
	if a.err == nil {
		for _, id := range ids {
			if _, ok := a.octets[id.UID]; !ok && a.errs[id.UID] == nil {
				t.Errorf("%s is not answered", id)
			}
		}
	}
	return a
}

func sampleMail(n int) []byte {
	return fmt.Appendf(nil, "From: a@example.org\r\nTo: b@example.org\r\nSubject: number %d\r\nMessage-ID: <%d@example.org>\r\nDate: Sat, 29 Feb 2020 12:00:00 +0000\r\n\r\nHello,\r\nthis is mail %d.\r\n", n, n, n)
}

var sampleDate = time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)

func TestDovecot(t *testing.T) {
	t.Parallel()
	for _, sep := range []string{"/", ".", "^"} {
		t.Run("separator "+sep, func(t *testing.T) {
			t.Parallel()
			d := dovecot.Start(t, dovecot.Options{Separator: sep})
			for i := range 25 {
				d.Deliver("alice", "INBOX", sampleMail(i+1), sampleDate.Add(time.Duration(i)*time.Hour), `\Seen`, "$Forwarded")
			}
			d.Deliver("alice", "Projekte/Übung/日本", sampleMail(100), sampleDate)
			d.MakeMailbox("alice", "Tom & Jerry")
			s := openSource(t, plainConfig(d.IMAP))

			names := mailboxNames(t, s)
			want := []string{"INBOX", "Projekte", "Projekte/Übung", "Projekte/Übung/日本", "Tom & Jerry"}
			if !slices.Equal(names, want) {
				t.Errorf("mailboxes are %q, want %q", names, want)
			}
			for m, err := range s.Mailboxes(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				if m.Name == "INBOX" && (m.State.Messages != 25 || m.State.Content == "" || m.State.Flags == "" || m.State.Bytes <= 0) {
					t.Errorf("the state of INBOX is %+v", m.State)
				}
				if m.Name == "Projekte" && m.Selectable {
					t.Error("Projekte holds no messages, and is said to be selectable")
				}
			}

			var opened message.MailboxState
			all := list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: message.AllSummary &^ message.NeedGmail,
				State: func(st message.MailboxState) { opened = st }})
			for m := range s.Mailboxes(t.Context()) {
				// Equal tokens are what lets a run pass a mailbox over.
				if m.Name == "INBOX" && (m.State.Content != opened.Content || m.State.Flags != opened.Flags || m.State.UIDValidity != opened.UIDValidity) {
					t.Errorf("STATUS says %+v, EXAMINE %+v", m.State, opened)
				}
			}
			if len(all) != 25 {
				t.Fatalf("%d messages, want 25", len(all))
			}
			first := all[0]
			if first.ID.UID != 1 || first.SequenceNumber != 1 || first.Size != int64(len(sampleMail(1))) || !first.InternalDate.Equal(sampleDate) {
				t.Errorf("the first is %+v", first)
			}
			if !slices.Equal(first.Flags, []string{`\Seen`}) || !slices.Equal(first.Keywords, []string{"$Forwarded"}) {
				t.Errorf("flags %q, keywords %q", first.Flags, first.Keywords)
			}
			if got := first.Header.Subject(); got != "number 1" {
				t.Errorf("subject %q", got)
			}
			if p := first.Structure; p == nil || p.MediaType != "text/plain" || p.Path != "1" {
				t.Errorf("structure %+v", p)
			}

			for name, deep := range d.Octets("alice", "Projekte"+sep+"&ANw-bung"+sep+"&ZeVnLA-") {
				a := fetch(t.Context(), t, s, "Projekte/Übung/日本", 0, idsOf(list(t, s, source.ListRequest{Mailbox: "Projekte/Übung/日本"})), 10)
				if string(a.octets[name]) != string(deep) {
					t.Errorf("UID %d of the nested mailbox is %q, want %q", name, a.octets[name], deep)
				}
			}
		})
	}
}

func TestOrderAndPaging(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	const n = 1203 // more than two pages
	for i := range n {
		d.Deliver("alice", "INBOX", sampleMail(i+1), sampleDate)
	}
	s := openSource(t, plainConfig(d.IMAP))
	for _, needs := range []message.Needs{0, message.NeedSize | message.NeedHeaders} {
		for _, newest := range []bool{false, true} {
			t.Run(fmt.Sprintf("needs %s, newest %v", needs, newest), func(t *testing.T) {
				want := make([]uint32, n)
				for i := range want {
					want[i] = uint32(i + 1)
				}
				if newest {
					slices.Reverse(want)
				}
				var got []uint32
				var after *message.ID
				for page := 0; ; page++ {
					sums := list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: needs, Newest: newest, After: after, Limit: 500})
					for _, sum := range sums {
						got = append(got, sum.ID.UID)
					}
					if len(sums) < 500 {
						break
					}
					after = &sums[len(sums)-1].ID
				}
				if !slices.Equal(got, want) {
					t.Errorf("the UIDs of all pages differ from 1 to %d in order", n)
				}
			})
		}
	}
	t.Run("only these", func(t *testing.T) {
		all := list(t, s, source.ListRequest{Mailbox: "INBOX"})
		some := []message.ID{all[7].ID, all[3].ID, {Mailbox: "INBOX", UIDValidity: all[0].ID.UIDValidity, UID: 99999}, {Mailbox: "INBOX", UIDValidity: 1, UID: 5}}
		got := list(t, s, source.ListRequest{Mailbox: "INBOX", IDs: some, Needs: message.NeedSize})
		if len(got) != 2 || got[0].ID.UID != 4 || got[1].ID.UID != 8 {
			t.Errorf("got %v", idsOf(got))
		}
	})
	t.Run("break off", func(t *testing.T) {
		for range s.List(t.Context(), source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize}) {
			break
		}
		for range s.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", IDs: batches(idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"})), 100)}) {
			break
		}
		if got := list(t, s, source.ListRequest{Mailbox: "INBOX", Limit: 3}); len(got) != 3 {
			t.Errorf("after breaking off: %d messages, want 3", len(got))
		}
	})
}

func TestFetchDovecot(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	const n = 700
	for i := range n {
		raw := sampleMail(i + 1)
		if i%100 == 50 {
			for len(raw) < 3<<20 { // larger than what is read into memory
				raw = append(raw, "0123456789 0123456789 0123456789 0123456789 0123456789\r\n"...)
			}
		}
		d.Deliver("alice", "INBOX", raw, sampleDate)
	}
	want := d.Octets("alice", "INBOX")
	s := openSource(t, plainConfig(d.IMAP))
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	for _, batch := range []int{1, 7, 300, 1000} {
		t.Run(fmt.Sprintf("batches of %d", batch), func(t *testing.T) {
			needs := message.NeedHeaders | message.NeedFlags | message.NeedSize
			a := fetch(t.Context(), t, s, "INBOX", needs, ids, batch)
			if a.err != nil || len(a.errs) > 0 {
				t.Fatalf("errors: %v %v", a.err, a.errs)
			}
			for uid, octets := range want {
				if string(a.octets[uid]) != string(octets) {
					t.Errorf("UID %d differs: %d octets, want %d", uid, len(a.octets[uid]), len(octets))
				}
			}
		})
	}
	t.Run("headers of small and large", func(t *testing.T) {
		for got, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", Needs: message.NeedBody | message.NeedHeaders, IDs: batches(ids[48:52], 4)}) {
			if err != nil || got.Err != nil {
				t.Fatal(err, got.Err)
			}
			if want := fmt.Sprintf("number %d", got.ID.UID); got.Message.Header.Subject() != want {
				t.Errorf("subject %q, want %q", got.Message.Header.Subject(), want)
			}
		}
	})
	t.Run("expunged in between", func(t *testing.T) {
		d.Doveadm("expunge", "-u", "alice", "mailbox", "INBOX", "uid", "3,5:7")
		for _, sum := range list(t, s, source.ListRequest{Mailbox: "INBOX", After: &ids[9], Limit: 2}) {
			if want := sum.ID.UID - 4; sum.SequenceNumber != want {
				t.Errorf("UID %d has the number %d, want %d", sum.ID.UID, sum.SequenceNumber, want)
			}
		}
		a := fetch(t.Context(), t, s, "INBOX", 0, ids[:20], 20)
		for _, uid := range []uint32{3, 5, 6, 7} {
			if !fault.Is(a.errs[uid], fault.Gone) {
				t.Errorf("UID %d: %v, want one that is gone", uid, a.errs[uid])
			}
		}
		if len(a.octets) != 16 || len(a.errs) != 4 {
			t.Errorf("%d bodies and %d errors, want 16 and 4", len(a.octets), len(a.errs))
		}
	})
	t.Run("other UIDVALIDITY", func(t *testing.T) {
		old := ids[30]
		old.UIDValidity++
		a := fetch(t.Context(), t, s, "INBOX", 0, []message.ID{old}, 1)
		if !fault.Is(a.errs[old.UID], fault.Gone) {
			t.Errorf("got %v, want one that is gone", a.errs[old.UID])
		}
	})
}

// contextAfter returns a context that is cancelled after d.
func contextAfter(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(d, cancel)
	return ctx, cancel
}

// openWithToken opens a source whose tokens come from a function.
func openWithToken(t testing.TB, c Config, token func() string) *Source {
	t.Helper()
	s := &Source{config: c, settings: c.settings(nil), log: slog.New(slog.NewTextHandler(testLog{t}, nil))}
	s.settings.Credentials.Token = mailnet.TokenFunc(func(context.Context) (string, error) { return token(), nil })
	s.pool = newPool(c.Connections, s.settings, s.log)
	t.Cleanup(func() { s.Close() })
	return s
}
