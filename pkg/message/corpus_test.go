package message

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

// corpusFact is what the corpus's oracle, CPython's email package, says of a
// mail.
type corpusFact struct {
	File            string
	ParseOK         bool `json:"parse_ok"`
	Subject         *string
	From, To        *string
	Date            *string
	MessageID       *string `json:"message_id"`
	ListUnsubscribe *string `json:"list_unsubscribe"`
	Attachments     []struct {
		Name      *string
		MediaType string `json:"media_type"`
		Size      int64
		SizeExact *bool `json:"size_exact"`
	}
}

func corpus(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("MAILHAUL_CORPUS")
	if dir == "" {
		t.Skip("MAILHAUL_CORPUS names no corpus")
	}
	return dir
}

func corpusFacts(t *testing.T, dir string) []corpusFact {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "facts.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Files []corpusFact }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	var out []corpusFact
	for _, f := range all.Files {
		if strings.HasPrefix(f.File, "eml/") {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s/facts.json tells of no mail", dir)
	}
	return out
}

// TestCorpusFacts compares with the oracle. Every disagreement stands in
// corpusOracleErrs, with the reason why ours is right; one that is gone must
// leave the list.
func TestCorpusFacts(t *testing.T) {
	dir := corpus(t)
	agree, total := map[string]int{}, 0
	found := map[string]bool{}
	for _, f := range corpusFacts(t, dir) {
		raw, err := os.ReadFile(filepath.Join(dir, f.File))
		if err != nil {
			t.Fatal(err)
		}
		if !f.ParseOK {
			continue
		}
		total++
		for field, pair := range compareFacts(raw, f) {
			if sameFact(field, pair[0], pair[1]) {
				agree[field]++
				continue
			}
			key := filepath.Base(f.File) + " " + field
			found[key] = true
			if _, ok := corpusOracleErrs[key]; !ok {
				t.Errorf("%s\n\tours   %q\n\toracle %q", key, pair[0], pair[1])
			}
		}
	}
	for key := range corpusOracleErrs {
		if !found[key] {
			t.Errorf("%s: stands in the list, but ours agrees with the oracle", key)
		}
	}
	for _, field := range []string{"subject", "message_id", "list_unsubscribe", "names", "sizes", "types", "from", "to", "date"} {
		share := 100 * float64(agree[field]) / float64(total)
		t.Logf("%-17s %d of %d agree (%.2f%%)", field, agree[field], total, share)
		if share < 99 {
			t.Errorf("%s: %.2f%% agree, less than 99%%", field, share)
		}
	}
}

// compareFacts returns ours and the oracle's for each field, in one notation.
func compareFacts(raw []byte, f corpusFact) map[string][2]string {
	h := NewHeader(raw)
	root, _, err := ReadStructure(bytes.NewReader(raw))
	if err != nil {
		return map[string][2]string{"error": {err.Error(), ""}}
	}
	out := map[string][2]string{
		"subject":          {blanks(h.Subject()), blanks(deref(f.Subject))},
		"message_id":       {blanks(h.MessageID()), blanks(deref(f.MessageID))},
		"list_unsubscribe": {blanks(h.Text("List-Unsubscribe")), blanks(deref(f.ListUnsubscribe))},
		"date":             {dateText(h), oracleDate(deref(f.Date))},
		"from":             {addressText(h.Addresses("From")), addressText(ParseAddresses(deref(f.From)))},
		"to":               {addressText(h.Addresses("To")), addressText(ParseAddresses(deref(f.To)))},
	}
	var ours, theirs, ourSizes, theirSizes, ourTypes, theirTypes []string
	for _, a := range Attachments(root) {
		ours = append(ours, a.Name)
		ourTypes = append(ourTypes, a.MediaType)
		if !strings.HasPrefix(a.MediaType, "message/") {
			ourSizes = append(ourSizes, fmt.Sprint(a.Size))
		}
	}
	for _, a := range f.Attachments {
		theirs = append(theirs, deref(a.Name))
		theirTypes = append(theirTypes, a.MediaType)
		if !strings.HasPrefix(a.MediaType, "message/") {
			theirSizes = append(theirSizes, fmt.Sprint(a.Size))
		}
	}
	out["names"] = [2]string{strings.Join(ours, "|"), strings.Join(theirs, "|")}
	out["sizes"] = [2]string{strings.Join(ourSizes, "|"), strings.Join(theirSizes, "|")}
	out["types"] = [2]string{strings.Join(ourTypes, "|"), strings.Join(theirTypes, "|")}
	return out
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// blanks makes runs of white space one blank: folding is read both ways.
func blanks(s string) string { return strings.Join(strings.Fields(s), " ") }

func dateText(h *Header) string {
	d, ok := h.Date()
	if !ok {
		return ""
	}
	return d.UTC().Format(time.RFC3339)
}

// oracleDate brings the oracle's date into our notation; what it couldn't
// read itself, it gives back as it stands.
func oracleDate(s string) string {
	d, err := time.Parse("Mon, _2 Jan 2006 15:04:05 -0700", s)
	if err != nil {
		return ""
	}
	return d.UTC().Format(time.RFC3339)
}

// addressText is a list of addresses in one notation, sorted: the oracle keeps
// each field's group members apart.
func addressText(list []Address) string {
	var out []string
	for _, a := range list {
		out = append(out, strings.ToLower(a.Address)+" "+a.Name)
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// sameFact compares ours with the oracle's. Where the oracle says by U+FFFD
// that it couldn't read octets, any text may stand; where it has dropped a
// name that stood in a comment, a name may stand.
func sameFact(field, ours, oracle string) bool {
	if field != "from" && field != "to" {
		return sameText(ours, oracle)
	}
	a, b := strings.Split(ours, "\n"), strings.Split(oracle, "\n")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		bare := strings.HasSuffix(b[i], " ") && strings.HasPrefix(a[i], b[i])
		if !bare && !sameText(a[i], b[i]) {
			return false
		}
	}
	return true
}

func sameText(ours, oracle string) bool {
	if ours == oracle {
		return true
	}
	pieces := strings.FieldsFunc(oracle, func(r rune) bool { return r == '\uFFFD' })
	if len(pieces) == 0 || !strings.Contains(oracle, "\uFFFD") {
		return false
	}
	for _, p := range pieces {
		i := strings.Index(ours, p)
		if i < 0 {
			return false
		}
		ours = ours[i+len(p):]
	}
	return true
}

// TestCorpusHostile reads what was made to break readers.
func TestCorpusHostile(t *testing.T) {
	dir := filepath.Join(corpus(t), "hostile")
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s holds nothing: %v", dir, err)
	}
	for _, f := range files {
		t.Run(f.Name(), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			checkMessage(t, raw)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}
