package status_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/message"
)

// sample makes a ledger with a run of three sources.
func sample(t testing.TB) (state string) {
	t.Helper()
	state = t.TempDir()
	l, err := ledger.Open(t.Context(), state, "acme")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)
	run, err := l.BeginRun(t.Context(), began)
	if err != nil {
		t.Fatal(err)
	}
	box, err := l.Box(t.Context(), "ann", "INBOX", 1)
	if err != nil {
		t.Fatal(err)
	}
	err = l.Commit(t.Context(), ledger.Epoch{
		Settled: []ledger.Settled{{Box: box, ID: message.ID{Source: "ann", Mailbox: "INBOX", UIDValidity: 1, UID: 7}, Octets: -1, Fates: []ledger.Fate{{
			Target: ledger.Everywhere, Class: ledger.Dead, Letter: &ledger.Letter{Reason: "no_body", Text: "the server\nhas none", Subject: "\x1b[2Jx"},
		}}}},
		Accounts: []ledger.Account{
			{Source: "ann", Run: run, Began: began, Ended: began, State: ledger.Complete},
			{Source: "日本", Run: run, Began: began, Ended: began, State: ledger.Parked, Until: began.Add(time.Hour), Err: "over quota"},
			{Source: "old", Run: run, Began: began, Ended: began, State: ledger.Complete},
		},
		Mailboxes: []ledger.Mailbox{
			{Source: "ann", Name: "INBOX", Run: run, State: ledger.Complete, Server: 10, Listed: 10, Dropped: map[string]int64{"recent": 2},
				Fates: ledger.Tally{ledger.Written: 5, ledger.Duplicate: 1, ledger.Unrouted: 1, ledger.Dropped: 2, ledger.Dead: 1}},
			{Source: "ann", Name: "Old", Run: run, State: ledger.Gone, Server: -1, Listed: 4, Fates: ledger.Tally{ledger.Written: 4}},
			{Source: "ann", Name: "Sent", Run: run, State: ledger.Complete, Server: 1, Listed: 1, Fates: ledger.Tally{ledger.Written: 1}},
			{Source: "日本", Name: "受信", Run: run, State: ledger.Incomplete, Server: 9, Listed: 8, Fates: ledger.Tally{ledger.Written: 3, ledger.Pending: 5}, BlindSpots: []string{"the server counts 9 messages and lists 8"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.EndRun(t.Context(), run, began.Add(90*time.Second), 3); err != nil {
		t.Fatal(err)
	}
	return state
}

func TestText(t *testing.T) {
	t.Parallel()
	s, err := status.Read(t.Context(), sample(t), "acme", []string{"ann", "日本", "new"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	s.Text(&b, false, time.Now())
	_, table, _ := strings.Cut(b.String(), "\n") // the first line has local times
	want := `         state                      listed  done  dropped  failed  pending
ann      complete                       11     8        2       1        0
  INBOX  complete                       10     7        2       1        0
日本     parked                          8     3        0       0        5
  受信   incomplete                      8     3        0       0        5
new      never run                       0     0        0       0        0
old      complete, not in the file       0     0        0       0        0
total                                   19    11        2       1        5

日本: over quota
`
	got, rest, _ := strings.Cut(table, "日本: parked until ")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.HasSuffix(rest, "\n日本/受信: the server counts 9 messages and lists 8\n\n1 dead letters: see them with \"pipeline failed list\"\n") {
		t.Errorf("got %s", rest)
	}
	if !strings.HasSuffix(strings.Split(b.String(), "\n")[0], ", took 1m30s, exit code 3 (done, with dead letters)") {
		t.Errorf("got %s", b.String())
	}
	// I1 over all that is shown.
	if c := s.Total; c.Listed != c.Done+c.Dropped+c.Failed+c.Vanished+c.Pending {
		t.Errorf("the sum doesn't hold: %+v", c)
	}
}

func TestOneSource(t *testing.T) {
	t.Parallel()
	s, err := status.Read(t.Context(), sample(t), "acme", []string{"ann", "日本"}, func(name string) bool { return name == "ann" })
	if err != nil || len(s.Sources) != 1 || len(s.Sources[0].Mailboxes) != 3 || s.Total.Listed != 11 {
		t.Errorf("%+v, %v", s, err)
	}
	raw, err := json.Marshal(s.Sources[0].Mailboxes[0])
	want := `{"name":"INBOX","state":"complete","listed":10,"done":7,"dropped":2,"failed":1,"vanished":0,"pending":0,"server":10,"dropped_by":{"recent":2},"run":1}`
	if string(raw) != want || err != nil {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestLetters(t *testing.T) {
	t.Parallel()
	state := sample(t)
	for name, tc := range map[string]struct {
		w    func(*strings.Builder) status.Writer
		want string
	}{
		"text": {func(b *strings.Builder) status.Writer { return status.NewText(b) }, `no_body: 1
  key         mailbox    subject  said
  <key>  ann/INBOX  [2Jx     the source: the server has none

1 dead letters; see one with "pipeline failed show KEY", try them again with "pipeline failed retry"
`},
		"json": {func(b *strings.Builder) status.Writer { return status.NewJSON(b) },
			`{"key":"<key>","source":"ann","mailbox":"INBOX","uid":7,"id":"ann:/INBOX;UIDVALIDITY=1/;UID=7","reason":"no_body","text":"the server\nhas none","subject":"\u001b[2Jx"}` + "\n"},
		"csv": {func(b *strings.Builder) status.Writer { return status.NewCSV(b) },
			"key,source,mailbox,uid,uidl,id,sink,by,reason,text,subject,from,date\n<key>,ann,INBOX,7,,ann:/INBOX;UIDVALIDITY=1/;UID=7,,,no_body,\"the server\nhas none\",\x1b[2Jx,,\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			w := tc.w(&b)
			if err := status.Letters(t.Context(), state, "acme", status.Choice{Sources: []string{"ann"}, Reasons: []string{"no_body"}}, w.Write); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			key := message.ID{Source: "ann", Mailbox: "INBOX", UIDValidity: 1, UID: 7}.Hash()
			if diff := cmp.Diff(strings.NewReplacer("<key>", key).Replace(tc.want), b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A status is as quick to tell with millions of messages as with ten: it is
// kept by mailbox.
func BenchmarkRead3000Sources(b *testing.B) {
	state := b.TempDir()
	l, err := ledger.Open(b.Context(), state, "acme")
	if err != nil {
		b.Fatal(err)
	}
	var e ledger.Epoch
	for i := range 3000 {
		name := fmt.Sprintf("user%d@example.com", i)
		e.Accounts = append(e.Accounts, ledger.Account{Source: name, Run: 1, State: ledger.Complete})
		for j := range 10 {
			e.Mailboxes = append(e.Mailboxes, ledger.Mailbox{Source: name, Name: fmt.Sprintf("Box %d", j), Run: 1, State: ledger.Complete, Server: 350, Listed: 350, Fates: ledger.Tally{ledger.Written: 350}})
		}
	}
	if err := l.Commit(b.Context(), e); err != nil {
		b.Fatal(err)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := status.Read(b.Context(), state, "acme", nil, nil)
		if err != nil || s.Total.Listed != 10_500_000 {
			b.Fatal(err)
		}
		s.Text(&strings.Builder{}, false, time.Now())
	}
}
