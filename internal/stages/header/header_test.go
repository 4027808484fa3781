package header_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/stages/header"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

func TestEdit(t *testing.T) {
	t.Parallel()
	mail := "Received: from a\r\n\tby b\r\nX-Spam: yes\r\n  and more\r\nSubject: hello\r\nx-spam : again\r\n\r\nX-Spam: in the text\r\n"
	tests := []struct {
		name   string
		config header.Config
		mail   string
		want   string
	}{
		{"remove takes all of a name, with what is folded", header.Config{Remove: []string{"X-SPAM"}}, mail,
			"Received: from a\r\n\tby b\r\nSubject: hello\r\n\r\nX-Spam: in the text\r\n"},
		{"rename keeps the value octet for octet", header.Config{Rename: map[string]string{"x-spam": "X-Was-Spam"}}, mail,
			"Received: from a\r\n\tby b\r\nX-Was-Spam: yes\r\n  and more\r\nSubject: hello\r\nX-Was-Spam : again\r\n\r\nX-Spam: in the text\r\n"},
		{"set stands in the place of the first", header.Config{Set: map[string]string{"X-Spam": "no"}}, mail,
			"Received: from a\r\n\tby b\r\nX-Spam: no\r\nSubject: hello\r\n\r\nX-Spam: in the text\r\n"},
		{"set of what is missing stands at the end", header.Config{Set: map[string]string{"X-A": "1"}}, "Subject: x\n\ntext\n", "Subject: x\nX-A: 1\n\ntext\n"},
		{"add stands at the end, beside what is there", header.Config{Add: map[string]string{"Subject": "two"}}, "Subject: x\r\n\r\n", "Subject: x\r\nSubject: two\r\n\r\n"},
		{"no header at all", header.Config{Set: map[string]string{"X-A": "1"}}, "\r\ntext", "X-A: 1\r\n\r\ntext"},
		{"nothing at all", header.Config{Set: map[string]string{"X-A": "1"}}, "", "X-A: 1\r\n"},
		{"no empty line", header.Config{Set: map[string]string{"X-A": "1"}}, "Subject: x", "Subject: x\r\nX-A: 1\r\n"},
		{"no empty line, but a line break", header.Config{Set: map[string]string{"X-A": "1"}}, "Subject: x\n", "Subject: x\nX-A: 1\n"},
		{"what is no field stays", header.Config{Remove: []string{"b"}}, "From me@here Mon\nA: 1\nno field here\nB: 2\n\nB: 3", "From me@here Mon\nA: 1\nno field here\n\nB: 3"},
		{"lines end in CR alone", header.Config{Remove: []string{"b"}, Add: map[string]string{"C": "3"}}, "A: 1\rB: 2\r\rtext\r", "A: 1\rC: 3\r\rtext\r"},
		{"other characters are encoded", header.Config{Add: map[string]string{"X-Who": "Jörg Müller"}}, "A: 1\r\n\r\n", "A: 1\r\nX-Who: =?utf-8?q?J=C3=B6rg_M=C3=BCller?=\r\n\r\n"},
		{"a long value is folded", header.Config{Add: map[string]string{"X-Long": strings.Repeat("some words ", 12) + "end"}}, "A: 1\r\n\r\n",
			"A: 1\r\nX-Long: some words some words some words some words some words some words some\r\n words some words some words some words some words some words end\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, err := header.New(tt.config)
			if err != nil {
				t.Fatal(err)
			}
			for name, r := range map[string]io.Reader{"at once": strings.NewReader(tt.mail), "octet by octet": iotest.OneByteReader(strings.NewReader(tt.mail))} {
				edited := e.Read(r)
				got, err := io.ReadAll(edited)
				if diff := cmp.Diff(tt.want, string(got)); diff != "" || err != nil {
					t.Errorf("%s: %s %v", name, diff, err)
				}
				if edited.Changed() != (tt.want != tt.mail) {
					t.Errorf("%s: changed is %v", name, edited.Changed())
				}
			}
		})
	}
}

// TestLongValuesAreReadBack: what is encoded and folded is read as it was given.
func TestLongValuesAreReadBack(t *testing.T) {
	t.Parallel()
	for _, v := range []string{strings.Repeat("Übermäßig ", 40) + "z", strings.Repeat("x", 500), "a  b", strings.Repeat("😀", 60)} {
		e, err := header.New(header.Config{Set: map[string]string{"X-V": v}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(e.Read(strings.NewReader("A: 1\r\n\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		if got := message.NewHeader(b).Text("X-V"); got != v {
			t.Errorf("got %q, want %q, from\n%s", got, v, b)
		}
	}
}

// TestLargeHeader passes a header of 8 MiB in one field.
func TestLargeHeader(t *testing.T) {
	t.Parallel()
	e, err := header.New(header.Config{Remove: []string{"X-Big"}, Add: map[string]string{"Z": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	big := "A: 1\r\nX-Big: " + strings.Repeat("x", 4<<20) + "\r\n " + strings.Repeat("X-Big: ", 1<<19) + "\r\nB: 2\r\n\r\ntext"
	got, err := io.ReadAll(e.Read(strings.NewReader(big)))
	if string(got) != "A: 1\r\nB: 2\r\nZ: 1\r\n\r\ntext" || err != nil {
		t.Errorf("%.200q, %v", got, err)
	}
	if _, err := io.ReadAll(e.Read(io.MultiReader(strings.NewReader("A: 1\r\n"), iotest.ErrReader(io.ErrUnexpectedEOF)))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that breaks off ends with %v", err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for key, c := range map[string]header.Config{
		"":        {},
		"remove":  {Remove: []string{"X Y"}},
		"set":     {Set: map[string]string{"a": "1"}, Remove: []string{"A"}},
		"rename.": {Rename: map[string]string{"a": "b:"}},
		"set.a":   {Set: map[string]string{"a": "1\r\nBcc: me"}},
		"add":     {Add: map[string]string{"ä": "1"}},
	} {
		_, err := header.New(c)
		if f := fault.As(err); f == nil || f.Class != fault.Config || !strings.HasPrefix(f.Key, key) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// FuzzRead: the body is never touched, and a message that has none of the
// fields comes through as it is.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"A: 1\r\nX-Spam: 2\r\n\r\ntext", "X-Spam: 1\n 2\n\nX-Spam: 3", "\n", "X-Spam", "a\rb\r", "X-Spam: \r\n\r\n\r\n"} {
		f.Add([]byte(s))
	}
	e, err := header.New(header.Config{Remove: []string{"X-Spam"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := e.Read(bytes.NewReader(b))
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Changed() && !bytes.Equal(got, b) {
			t.Errorf("%q became %q, and nobody said so", b, got)
		}
		if again, err := io.ReadAll(e.Read(bytes.NewReader(got))); err != nil || !r.Changed() && !bytes.Equal(again, got) {
			t.Errorf("%q became %q: %v", got, again, err)
		}
		if _, body, ok := bytes.Cut(b, []byte("\r\n\r\n")); ok && !bytes.Contains(b[:len(b)-len(body)], []byte("\n\n")) && !bytes.HasSuffix(got, body) {
			t.Errorf("the body of %q became %q", b, got)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	e, err := header.New(header.Config{Remove: []string{"X-Spam"}, Set: map[string]string{"X-Exported-By": "mailhaul"}})
	if err != nil {
		b.Fatal(err)
	}
	mail := []byte(strings.Repeat("Received: from somewhere\r\n\tby here\r\n", 40) + "\r\n" + strings.Repeat("a line of text\r\n", 2000))
	b.SetBytes(int64(len(mail)))
	for b.Loop() {
		if n, err := io.Copy(io.Discard, e.Read(bytes.NewReader(mail))); err != nil || n == 0 {
			b.Fatal(fmt.Sprint(n, err))
		}
	}
}
