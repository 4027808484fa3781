package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/remote"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

func openSource(t testing.TB, s wire.Session) source.Source {
	t.Helper()
	o, err := connect(t, sourceOf(s)).OpenSource(t.Context(), remote.Spec{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	return o.Source
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	got, err := connect(t, sourceOf(wire.Session{})).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := sourceOf(wire.Session{}).Description; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

func TestOpenSource(t *testing.T) {
	t.Parallel()
	a := sourceOf(wire.Session{Lanes: 4, Provides: message.NeedSize, URL: "imap://u@h", Notes: []string{"slow"},
		Budget: wire.Budget{Bytes: 1 << 40, Per: 24 * time.Hour}, Facts: map[string]string{"tls": "TLS 1.3"}})
	open := a.Open
	a.Open = func(ctx context.Context, o wire.Opening) (*wire.Session, error) {
		if o.Name != "alice" || string(o.Config) != `{"a":1}` || o.Spool.Dir != "/spool" || o.Spool.Budget != 9 {
			return nil, fmt.Errorf("opened with %+v", o)
		}
		return open(ctx, o)
	}
	o, err := connect(t, a).OpenSource(t.Context(), remote.Spec{
		Name: "alice", Config: []byte(`{"a":1}`), Spool: &message.Spool{Dir: "/spool", Budget: 9},
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.Lanes != 4 || o.Provides != message.NeedSize || o.URL != "imap://u@h" || len(o.Notes) != 1 || o.Notes[0] != "slow" || o.Facts["tls"] != "TLS 1.3" {
		t.Errorf("opened %+v", o)
	}
	if o.Budget != (source.Budget{Bytes: 1 << 40, Per: 24 * time.Hour}) || o.Finishes {
		t.Errorf("opened with budget %v, Finishes %v", o.Budget, o.Finishes)
	}
	if _, ok := o.Source.(source.Finisher); ok {
		t.Error("a session without Finish is a Finisher")
	}
	if err := o.Source.Close(); err != nil {
		t.Error(err)
	}
	if err := o.Source.Close(); !fault.Is(err, fault.Bug) {
		t.Errorf("closed twice: %v, want a Bug", err)
	}
}

// Every class arrives as it was, with all that belongs to it.
func TestErrorClasses(t *testing.T) {
	t.Parallel()
	for class := fault.Unknown; class <= fault.Crashed; class++ {
		t.Run(class.String(), func(t *testing.T) {
			t.Parallel()
			want := &fault.Error{
				Class: class, Text: "fetch 5: NO [LIMIT] later", Hint: "wait", Key: "config.tls.ca_file",
				Reason: "placeholder", RetryAfter: 90 * time.Second,
			}
			a := sourceOf(wire.Session{})
			a.Open = func(context.Context, wire.Opening) (*wire.Session, error) { return nil, want }
			_, err := connect(t, a).OpenSource(t.Context(), remote.Spec{})
			if got := fault.As(err); !cmp.Equal(got, want) {
				t.Error(cmp.Diff(want, got))
			}
		})
	}
}

func TestMailboxes(t *testing.T) {
	t.Parallel()
	want := []message.Mailbox{
		{Name: "INBOX", Selectable: true, State: message.MailboxState{Messages: 3, Bytes: -1, UIDValidity: 9, Content: "c", Flags: "f"}},
		{Name: "Entwürfe/あ", SpecialUse: []string{"drafts"}, Within: "Alle Nachrichten", Overlaps: true},
	}
	for i := range 5000 {
		want = append(want, message.Mailbox{Name: fmt.Sprintf("many/%d", i)})
	}
	s := openSource(t, wire.Session{Mailboxes: func(context.Context) iter.Seq2[message.Mailbox, error] {
		return func(yield func(message.Mailbox, error) bool) {
			for _, m := range want {
				if !yield(m, nil) {
					return
				}
			}
			yield(message.Mailbox{}, fault.New(fault.Unavailable, "LIST: connection reset"))
		}
	}})
	var got []message.Mailbox
	var last error
	for m, err := range s.Mailboxes(t.Context()) {
		if err != nil {
			last = err
			continue
		}
		got = append(got, m)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if !fault.Is(last, fault.Unavailable) {
		t.Errorf("ended with %v, want Unavailable", last)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	full := message.Summary{
		ID: message.ID{Mailbox: "INBOX", UIDValidity: 1, UID: 5}, ObjectID: "M1", Place: "Projekte/Übung", SequenceNumber: 2,
		Have: message.AllSummary, Size: 1 << 40,
		InternalDate: time.Date(2020, 2, 29, 12, 0, 0, 0, time.FixedZone("", 3600)),
		Flags:        []string{`\Seen`}, Keywords: []string{"bad\xff"}, Labels: []string{"ü"},
		Gmail:     &message.Gmail{MessageID: 1 << 63, ThreadID: 2, Labels: []string{`\Inbox`}},
		Header:    message.NewHeader([]byte("Subject: \xff\r\n\r\n")),
		Structure: &message.Part{MediaType: "multipart/mixed", Size: -1, Children: []*message.Part{{Path: "1", Params: map[string]string{"a": "b"}}}},
		Extra:     map[string]string{"x": "y"}, Vars: map[string]string{"v": "w"},
	}
	bare := message.Summary{ID: message.ID{Mailbox: "Other", UIDL: "\x80raw", HeaderHash: "ab", Ordinal: 3}}
	refused := message.Summary{ID: message.ID{Mailbox: "INBOX", UIDValidity: 1, UID: 6}, Fails: 2}
	state := message.MailboxState{Messages: 2, Bytes: 7, UIDValidity: 1, BlindSpots: []string{"the server shows 10,000 messages", "bad \xff"}}
	after := message.ID{Mailbox: "INBOX", UIDValidity: 1, UID: 4}
	req := source.ListRequest{
		Mailbox: "INBOX", Needs: message.AllSummary, IDs: []message.ID{full.ID, bare.ID}, After: &after, Limit: 10, Newest: true,
		Skip: 1 << 20, Among: []string{"INBOX", "Übung"}, Where: []source.Condition{
			{Field: "date", Op: ">=", Time: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)},
			{Field: "size", Op: "<", Size: 1 << 40}, {Field: "flags", Op: "has", Flag: `\Seen`},
		},
	}
	lanes := 1
	s := openSource(t, wire.Session{
		Lanes:    4,
		LanesNow: func() int { return lanes },
		List: func(_ context.Context, r wire.ListRequest) iter.Seq2[message.Summary, error] {
			return func(yield func(message.Summary, error) bool) {
				got := source.ListRequest{
					Mailbox: r.Mailbox, Needs: r.Needs, IDs: r.IDs, After: r.After, Limit: r.Limit, Newest: r.Newest, Skip: r.Skip, Among: r.Among,
				}
				for _, c := range r.Where {
					got.Where = append(got.Where, source.Condition(c))
				}
				if diff := cmp.Diff(req, got, cmpopts.IgnoreFields(source.ListRequest{}, "State")); diff != "" {
					yield(message.Summary{}, errors.New(diff))
					return
				}
				r.State(state)
				_ = yield(full, nil) && yield(bare, nil) && yield(refused, nil)
			}
		},
	})
	var got []message.Summary
	var stated []message.MailboxState
	call := req
	call.State = func(m message.MailboxState) {
		if len(got) > 0 {
			t.Error("State came after the first summary")
		}
		stated = append(stated, m)
	}
	for sum, err := range s.List(t.Context(), call) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, sum)
	}
	full.Keywords = []string{"bad\uFFFD"} // protobuf strings are UTF-8
	raw := cmp.Transformer("raw", func(h *message.Header) []byte {
		if h == nil {
			return nil
		}
		return h.Raw()
	})
	if diff := cmp.Diff([]message.Summary{full, bare, refused}, got, cmpopts.EquateEmpty(), raw); diff != "" {
		t.Error(diff)
	}
	state.BlindSpots[1] = "bad \uFFFD"
	if diff := cmp.Diff([]message.MailboxState{state}, stated); diff != "" {
		t.Error(diff)
	}
	if n := s.(source.Laner).Lanes(); n != 1 {
		t.Errorf("lanes are %d after the source lowered them to 1", n)
	}
}

// Bodies of all sizes around the edges of buffers and frames arrive as they
// were, from memory and from readers, read by Read, WriteTo and Bytes.
func TestFetchBodies(t *testing.T) {
	t.Parallel()
	var sizes []int
	for _, n := range []int{0, 1, 4 << 10, 16 << 10, 64 << 10, wire.MaxFrame, 1 << 20, 3*wire.MaxFrame + 17} {
		for d := -1; d <= 1; d++ {
			if n+d >= 0 {
				sizes = append(sizes, n+d)
			}
		}
	}
	rounds := 4 * len(sizes)
	sizeOf := func(u uint32) int { return sizes[int(u)%len(sizes)] }
	s := openSource(t, wire.Session{Fetch: bodies(func(id message.ID) *message.Body {
		n := sizeOf(id.UID)
		switch id.UID % 3 {
		case 0:
			return message.BodyOf(patternOf(int(id.UID), n))
		case 1:
			return message.NewBody(&pattern{seed: int(id.UID), n: n}, int64(n), nil)
		}
		return message.NewBody(&pattern{seed: int(id.UID), n: n}, -1, nil)
	})})
	next := uint32(1)
	for f, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", Needs: message.NeedBody, IDs: uids(rounds, 7)}) {
		if err != nil {
			t.Fatal(err)
		}
		if want := (message.ID{Mailbox: "INBOX", UIDValidity: 7, UID: next}); f.ID != want || f.Message.ID != want {
			t.Fatalf("got %v and %v, want %v", f.ID, f.Message.ID, want)
		}
		n, seed := sizeOf(next), int(next)
		body := f.Message.Body
		if size := body.Size(); size >= 0 && size != int64(n) {
			t.Errorf("size is %d, want %d", size, n)
		}
		switch next % 4 {
		case 0: // not read at all
		case 1:
			var w check
			if _, err := body.WriteTo(&w); err != nil || !w.is(seed, n) {
				t.Errorf("message %d, %d octets, WriteTo: %v, same: %v", next, n, err, w.is(seed, n))
			}
		case 2: // broken off
			if _, err := io.CopyN(io.Discard, body, int64(n/2)); err != nil {
				t.Errorf("message %d: %v", next, err)
			}
		default:
			if err := same(body, seed, n); err != nil {
				t.Errorf("message %d of %d octets: %v", next, n, err)
			}
		}
		next++
	}
	if int(next) != rounds+1 {
		t.Errorf("%d messages came, want %d", next-1, rounds)
	}
}

type check struct{ b []byte }

func (c *check) Write(p []byte) (int, error) { c.b = append(c.b, p...); return len(p), nil }

func (c *check) is(seed, n int) bool { return string(c.b) == string(patternOf(seed, n)) }

func TestFetchAnswers(t *testing.T) {
	t.Parallel()
	cut := fault.New(fault.Unavailable, "read the literal: unexpected EOF")
	lanes := 3
	s := openSource(t, wire.Session{Lanes: 3, LanesNow: func() int { return lanes },
		Fetch: func(_ context.Context, r wire.FetchRequest, answer func(wire.Fetched) error) error {
			for ids := range r.IDs {
				for _, id := range ids {
					f := wire.Fetched{ID: id}
					m := &message.Message{Summary: message.Summary{ID: id, Size: 5}, Assembled: true}
					switch id.UID {
					case 1:
						f.Err = fault.New(fault.Gone, "gone").WithReason("expunged")
						f.Instead = bytes.Repeat([]byte("\x00\xff"), 40<<10)
					case 2:
						f.Message = m // no body was asked for
					case 3: // neither: a bug of the source
					case 4:
						m.Body = message.NewBody(io.MultiReader(&pattern{n: 100}, failing{cut}), 200, nil)
						f.Message = m
					case 5:
						m.Body = message.NewBody(io.MultiReader(&pattern{n: 5 << 20}, failing{cut}), 6<<20, nil)
						f.Message = m
					case 6:
						m.Body = message.NewBody(&pattern{n: 10}, 11, nil) // shorter than it said
						f.Message = m
					}
					lanes = 2
					if err := answer(f); err != nil {
						return err
					}
				}
			}
			return nil
		}})
	type result struct {
		class fault.Class // of Err, or of the body's Read
		whole bool
	}
	got := map[uint32]result{}
	var last error
	for f, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", IDs: uids(6, 10)}) {
		if err != nil {
			last = err
			break
		}
		switch {
		case f.Err != nil:
			got[f.ID.UID] = result{class: fault.Of(f.Err)}
			if f.ID.UID == 1 && !bytes.Equal(f.Instead, bytes.Repeat([]byte("\x00\xff"), 32<<10)) {
				t.Errorf("instead of message 1 came %d octets, want the first 64 KiB", len(f.Instead))
			}
		case f.Message.Body == nil:
			if !f.Message.Assembled || f.Message.Size != 5 {
				t.Errorf("message %+v lost what was known of it", f.Message)
			}
			got[f.ID.UID] = result{whole: true}
		default:
			_, err := io.Copy(io.Discard, f.Message.Body)
			got[f.ID.UID] = result{class: fault.Of(err), whole: err == nil}
		}
	}
	want := map[uint32]result{
		1: {class: fault.Gone}, 2: {whole: true}, 3: {class: fault.Bug},
		4: {class: fault.Unavailable}, 5: {class: fault.Unavailable},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Error(diff)
	}
	mustContain(t, last, "plugin test", "11", "10")
	if n := s.(source.Laner).Lanes(); n != 2 {
		t.Errorf("lanes are %d, want 2", n)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestFetchTerminalError(t *testing.T) {
	t.Parallel()
	s := openSource(t, wire.Session{
		Fetch: func(_ context.Context, r wire.FetchRequest, answer func(wire.Fetched) error) error {
			for ids := range r.IDs {
				if err := answer(wire.Fetched{ID: ids[0], Message: &message.Message{}}); err != nil {
					return err
				}
				return fault.New(fault.Throttled, "slow down").After(time.Minute)
			}
			return nil
		}})
	answers := 0
	var last error
	for _, err := range s.Fetch(t.Context(), source.FetchRequest{IDs: uids(10, 10)}) {
		if err != nil {
			last = err
			continue
		}
		answers++
	}
	if f := fault.As(last); answers != 1 || f == nil || f.Class != fault.Throttled || f.RetryAfter != time.Minute {
		t.Errorf("%d answers and %#v", answers, last)
	}
}

func TestPanicIsABug(t *testing.T) {
	t.Parallel()
	s := openSource(t, wire.Session{
		Mailboxes: func(context.Context) iter.Seq2[message.Mailbox, error] { panic("no mailboxes") },
		Fetch: func(context.Context, wire.FetchRequest, func(wire.Fetched) error) error {
			panic(errors.New("no messages"))
		},
	})
	for _, err := range s.Mailboxes(t.Context()) {
		mustContain(t, err, "test panicked in Mailboxes", "no mailboxes")
	}
	for _, err := range s.Fetch(t.Context(), source.FetchRequest{IDs: uids(1, 1)}) {
		if !fault.Is(err, fault.Bug) {
			t.Errorf("%v, want a Bug", err)
		}
	}
}

// A consumer that breaks off, and one whose context is cancelled, get back at
// once, and the source sees it.
func TestFetchCancel(t *testing.T) {
	// A call that is cancelled before its ids are there never answers.
	begun, stopped := make(chan struct{}, 1), make(chan error, 1)
	endless := wire.Session{
		Fetch: func(ctx context.Context, r wire.FetchRequest, answer func(wire.Fetched) error) error {
			for ids := range r.IDs {
				for _, id := range ids {
					begun <- struct{}{}
					m := &message.Message{Body: message.NewBody(endless{}, -1, nil)}
					if err := answer(wire.Fetched{ID: id, Message: m}); err != nil {
						stopped <- ctx.Err()
						return err
					}
				}
			}
			return nil
		}}
	for _, how := range []string{"break", "cancel", "cancel while the source is silent"} {
		t.Run(how, func(t *testing.T) {
			leakCheck(t)
			session := endless
			if how == "cancel while the source is silent" {
				session.Fetch = func(ctx context.Context, _ wire.FetchRequest, _ func(wire.Fetched) error) error {
					begun <- struct{}{}
					<-ctx.Done()
					stopped <- ctx.Err()
					return ctx.Err()
				}
			}
			s := openSource(t, session)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			canceller := make(chan struct{})
			go func() {
				defer close(canceller)
				<-begun
				if how != "break" {
					cancel()
				}
			}()
			for f, err := range s.Fetch(ctx, source.FetchRequest{IDs: uids(1000, 1)}) {
				if how == "break" {
					break
				}
				if err == nil {
					_, err = io.Copy(io.Discard, f.Message.Body)
				}
				if !errors.Is(err, context.Canceled) {
					t.Errorf("ended with %v, want context.Canceled", err)
				}
			}
			if err := <-stopped; err == nil {
				t.Error("the source's context wasn't cancelled")
			}
			<-canceller
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Every id is answered, each with its own error; the last pair may be the
// stream's.
func TestFinish(t *testing.T) {
	t.Parallel()
	var ids []message.ID
	for i := range uint32(3000) {
		ids = append(ids, message.ID{Mailbox: "INBOX", UIDValidity: 1, UID: i + 1})
	}
	want := source.FinishRequest{Mailbox: "INBOX", IDs: ids, Action: source.Action{Move: "Exported/あ"}}
	gone := fault.New(fault.Gone, "UID 7 isn't there")
	a := sourceOf(wire.Session{
		Finishes: true,
		Finish: func(_ context.Context, r wire.FinishRequest, answer func(wire.Finished) error) error {
			got := source.FinishRequest{Mailbox: r.Mailbox, IDs: r.IDs, Action: source.Action(r.Action)}
			if diff := cmp.Diff(want, got); diff != "" {
				return errors.New(diff)
			}
			for _, id := range r.IDs {
				f := wire.Finished{ID: id}
				if id.UID == 7 {
					f.Err = gone
				}
				if err := answer(f); err != nil {
					return err
				}
			}
			return fault.New(fault.Unavailable, "connection reset")
		},
	})
	o, err := connect(t, a).OpenSource(t.Context(), remote.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if !o.Finishes {
		t.Error("Finishes didn't arrive")
	}
	var got []message.ID
	var last error
	for f, err := range o.Source.(source.Finisher).Finish(t.Context(), want) {
		switch {
		case err != nil:
			last = err
		case f.ID.UID == 7 && fault.Is(f.Err, fault.Gone), f.Err == nil:
			got = append(got, f.ID)
		default:
			t.Errorf("%s: %v", f.ID, f.Err)
		}
	}
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Error(diff)
	}
	if !fault.Is(last, fault.Unavailable) {
		t.Errorf("ended with %v, want Unavailable", last)
	}
	for range o.Source.(source.Finisher).Finish(t.Context(), want) {
		break // whoever has enough hangs nothing
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	a := sourceOf(wire.Session{})
	a.Open = func(ctx context.Context, o wire.Opening) (*wire.Session, error) {
		v, err := o.Secret(ctx, "password")
		if err != nil {
			return nil, err
		}
		return &wire.Session{URL: v}, o.Store(ctx, "token", v+"2")
	}
	conn := connect(t, a)
	stored := ""
	own := remote.Secrets{
		Value: func(_ context.Context, ref string) (string, error) { return ref + "-value", nil },
		Store: func(_ context.Context, ref, value string) error { stored = ref + "=" + value; return nil },
	}
	o, err := conn.OpenSource(t.Context(), remote.Spec{Name: "a", Secrets: own})
	if err != nil || o.URL != "password-value" || stored != "token=password-value2" {
		t.Errorf("%v, got %q, stored %q", err, o.URL, stored)
	}
	// A session without secrets gets none of another's (I9).
	_, err = conn.OpenSource(t.Context(), remote.Spec{Name: "b"})
	if !fault.Is(err, fault.Config) {
		t.Errorf("%v, want Config", err)
	}
}

func TestThousandsOfSessions(t *testing.T) {
	t.Parallel()
	conn := connect(t, sourceOf(wire.Session{Fetch: bodies(func(id message.ID) *message.Body {
		return message.BodyOf(patternOf(int(id.UID), 100))
	})}))
	const sessions = 2000
	open := make([]source.Source, sessions)
	for i := range open {
		o, err := conn.OpenSource(t.Context(), remote.Spec{Name: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		open[i] = o.Source
	}
	results := make(chan error, sessions)
	for _, s := range open {
		go func() {
			n := 0
			for f, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", IDs: uids(3, 2)}) {
				if err == nil {
					err = same(f.Message.Body, int(f.ID.UID), 100)
				}
				if err != nil {
					results <- err
					return
				}
				n++
			}
			if n != 3 {
				results <- fmt.Errorf("%d messages", n)
				return
			}
			results <- s.Close()
		}()
	}
	for range sessions {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
}
