package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// fact is what somebody else's reader says of a mail: the corpus's oracle, or
// whoever wrote the sample.
type fact struct {
	File            string
	ParseOK         bool `json:"parse_ok"`
	Subject         *string
	MessageID       *string `json:"message_id"`
	ListUnsubscribe *string `json:"list_unsubscribe"`
	Attachments     []struct{ Name *string }
}

// mail is one message to deliver.
type mail struct {
	fact
	raw []byte
}

// corpusMails reads the mails of the corpus with its facts.
func corpusMails(t *testing.T) []mail {
	t.Helper()
	dir := os.Getenv("MAILHAUL_CORPUS")
	if dir == "" {
		t.Skip("MAILHAUL_CORPUS names no corpus")
	}
	b, err := os.ReadFile(filepath.Join(dir, "facts.json"))
	if err != nil {
		t.Fatal(err)
	}
	var facts struct{ Files []fact }
	if err := json.Unmarshal(b, &facts); err != nil {
		t.Fatal(err)
	}
	var out []mail
	for _, f := range facts.Files {
		if !strings.HasPrefix(f.File, "eml/") {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, f.File))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, mail{f, raw})
	}
	if len(out) == 0 {
		t.Fatalf("%s/facts.json tells of no mail", dir)
	}
	return out
}

// boxes are the mailboxes that mail goes to: as the pipeline names them, and
// as they stand on the wire of a server whose levels are parted by a dot.
var boxes = [][2]string{
	{"INBOX", "INBOX"},
	{"Work/2025/Q1", "Work.2025.Q1"},
	{"Projekte/Übung", "Projekte.&ANw-bung"},
	{"日本語/受信", "&ZeVnLIqe-.&U9dP4Q-"},
	{"R&D/a b", "R&-D.a b"},
	{"Архив", "&BBAEQARFBDgEMg-"},
}

// TestSamples exports the project's own samples.
func TestSamples(t *testing.T) {
	t.Parallel()
	exportAll(t, samples(t), 100)
}

// TestCorpus exports the corpus: thousands of mails of all kinds.
func TestCorpus(t *testing.T) {
	t.Parallel()
	exportAll(t, corpusMails(t), 99)
}

// exportAll delivers mails to nested mailboxes, exports them, and holds every
// file against what a client that shares no code with us reads (I4), and the
// index against the facts, of which so many per cent must agree.
func exportAll(t *testing.T, all []mail, least float64) {
	server := dovecot.Start(t, dovecot.Options{Separator: "."})
	delivered := map[string]mail{} // mailbox and UID -> mail
	next := map[string]uint32{}
	for i, m := range all {
		box := boxes[i%len(boxes)][0]
		server.Deliver("alice", box, m.raw, time.Unix(1_700_000_000+int64(i), 0))
		next[box]++
		delivered[fmt.Sprint(box, " ", next[box])] = m
	}
	j := newJob(t, file{address: server.IMAP}.String())
	o := j.run(0, "run")
	needs(t, o.out, fmt.Sprintf("total: %d listed = %d written\n", len(all), len(all)))
	t.Logf("%d mails in %s", len(all), o.took)

	files := mails(t, j.path("export/eml"))
	if len(files) != len(all) {
		t.Errorf("%d files, want %d", len(files), len(all))
	}
	lines := index(t, j.path("export/index.jsonl"))
	if len(lines) != len(all) {
		t.Errorf("the index has %d lines, want %d", len(lines), len(all))
	}
	octets := map[string][]byte{}
	for _, box := range boxes {
		for uid, b := range server.Octets("alice", box[1]) {
			octets[fmt.Sprint(box[0], " ", uid)] = b
		}
	}
	seen := map[string]bool{}
	agree, parsed := map[string]int{}, 0
	for _, e := range lines {
		key := fmt.Sprint(e.Mailbox, " ", e.UID)
		seen[key] = true
		want, ok := octets[key]
		if !ok {
			t.Errorf("the index has %s, which the server doesn't", key)
			continue
		}
		if got := files[e.Files["archive"]]; got != sum(want) || e.SHA256 != got || e.Octets != int64(len(want)) {
			t.Errorf("%s: the server has %d octets, sha256 %s; %s has %s, the index %d octets and %s",
				key, len(want), sum(want), e.Files["archive"], got, e.Octets, e.SHA256)
		}
		if m := delivered[key]; m.ParseOK {
			parsed++
			compare(t, agree, e, m.fact)
		}
	}
	for key := range octets {
		if !seen[key] {
			t.Errorf("the index lacks %s", key)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(agree)) {
		share := 100 * float64(agree[field]) / float64(parsed)
		t.Logf("%-17s %d of %d agree (%.2f%%)", field, agree[field], parsed, share)
		if share < least {
			t.Errorf("%s: %.2f%% agree with the facts, want %g%%", field, share, least)
		}
	}
	if len(agree) != 4 {
		t.Errorf("compared %v, want four fields", agree)
	}
}

// compare counts where a line of the index agrees with the facts. pkg/message
// lists each disagreement, with the reason.
func compare(t *testing.T, agree map[string]int, e entry, f fact) {
	var ours, theirs []string
	for _, a := range e.Attachments {
		ours = append(ours, a.Name)
	}
	for _, a := range f.Attachments {
		theirs = append(theirs, text(a.Name))
	}
	for field, pair := range map[string][2]string{
		"subject":          {e.Subject, text(f.Subject)},
		"message_id":       {e.MessageID, text(f.MessageID)},
		"list_unsubscribe": {e.ListUnsubscribe, text(f.ListUnsubscribe)},
		"names":            {strings.Join(ours, "|"), strings.Join(theirs, "|")},
	} {
		if same(pair[0], pair[1]) {
			agree[field]++
			continue
		}
		agree[field] += 0
		t.Logf("%s %s: the index has %q, the facts %q", f.File, field, pair[0], pair[1])
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// same compares with runs of white space as one blank: folding is read both
// ways. Where the oracle says by U+FFFD that it couldn't read octets, any
// text may stand.
func same(ours, oracle string) bool {
	ours, oracle = strings.Join(strings.Fields(ours), " "), strings.Join(strings.Fields(oracle), " ")
	if ours == oracle {
		return true
	}
	pieces := strings.FieldsFunc(oracle, func(r rune) bool { return r == '\uFFFD' })
	if len(pieces) == 0 || !strings.Contains(oracle, "\uFFFD") {
		return false
	}
	for _, p := range pieces {
		_, rest, ok := strings.Cut(ours, p)
		if !ok {
			return false
		}
		ours = rest
	}
	return true
}
