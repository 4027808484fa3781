package message

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// checkMessage holds what is true of every message, however broken: both
// readers and any cut of the input agree, sizes and sums are those of what
// Open gives, offsets nest, and text is valid UTF-8.
func checkMessage(t *testing.T, raw []byte) *Part {
	t.Helper()
	root, problems, err := ReadStructure(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("ReadStructure: %v", err)
	}
	if len(problems) > maxProblems {
		t.Errorf("%d problems", len(problems))
	}
	halves, _, err := ReadStructure(iotest.HalfReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatalf("ReadStructure by halves: %v", err)
	}
	samePart(t, root, halves, true)
	e, _, err := Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	samePart(t, root, e.Part, false)
	if e.start != 0 || e.end != int64(len(raw)) {
		t.Errorf("the root reaches from %d to %d of %d", e.start, e.end, len(raw))
	}
	checkEntity(t, e, root)
	h, err := e.Header()
	if err != nil {
		t.Fatalf("Header: %v", err)
	}
	h.Date()
	for _, s := range append(h.Problems(), h.Subject(), h.MessageID()) {
		if !utf8.ValidString(s) {
			t.Errorf("%q isn't valid UTF-8", s)
		}
	}
	for _, name := range []string{"From", "To", "Cc"} {
		for _, a := range h.Addresses(name) {
			if !utf8.ValidString(a.Name) || !utf8.ValidString(a.Address) {
				t.Errorf("%s: %q isn't valid UTF-8", name, a)
			}
		}
	}
	return root
}

func checkEntity(t *testing.T, e *Entity, p *Part) {
	t.Helper()
	if e.start > e.body || e.body > e.end {
		t.Errorf("part %q: header at %d, body at %d, end at %d", p.Path, e.start, e.body, e.end)
	}
	if p.EncodedSize != e.end-e.body {
		t.Errorf("part %q: encoded size %d, the body has %d", p.Path, p.EncodedSize, e.end-e.body)
	}
	for _, s := range []string{p.Name, p.MediaType, p.Disposition, p.Encoding, p.ContentID, p.ContentLocation} {
		if !utf8.ValidString(s) {
			t.Errorf("part %q: %q isn't valid UTF-8", p.Path, s)
		}
	}
	if len(e.Children) == 0 {
		sum := sha256.New()
		n, err := io.Copy(sum, e.Open())
		if err != nil || n != p.Size {
			t.Errorf("part %q (%s): Open gives %d octets (%v), Size is %d", p.Path, p.Encoding, n, err, p.Size)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); p.SHA256 != "" && got != p.SHA256 {
			t.Errorf("part %q (%s): Open's sum is %s, SHA256 is %s", p.Path, p.MediaType, got, p.SHA256)
		}
		text, _, err := e.Text(1 << 20)
		if err != nil || !utf8.ValidString(text) {
			t.Errorf("part %q: Text isn't valid UTF-8 (%v)", p.Path, err)
		}
	}
	at := e.body
	for i, c := range e.Children {
		if c.start < at || c.end > e.end {
			t.Errorf("part %q reaches from %d to %d, its parent's rest from %d to %d", p.Children[i].Path, c.start, c.end, at, e.end)
		}
		at = c.end
		checkEntity(t, c, p.Children[i])
	}
}

func samePart(t *testing.T, a, b *Part, sums bool) {
	t.Helper()
	x, y := *a, *b
	if x.Path != y.Path || x.MediaType != y.MediaType || x.Name != y.Name || x.EncodedSize != y.EncodedSize ||
		x.Size != y.Size || x.Inline != y.Inline || len(x.Params) != len(y.Params) || len(x.Children) != len(y.Children) ||
		sums && x.SHA256 != y.SHA256 {
		t.Fatalf("read twice, not the same:\n\t%+v\n\t%+v", x, y)
	}
	for i := range a.Children {
		samePart(t, a.Children[i], b.Children[i], sums)
	}
}
