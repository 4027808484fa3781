package mapi_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/mapi"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msgtest"
)

// message sets what every message has.
func message(o *mapi.Object) {
	o.String(0x1A, "IPM.Note")
	o.Int(0x340D, 0x40E79)
	o.Int(0x0E07, 1)
	o.Int(0x3FDE, 65001)
	o.Bool(0x0E1B, false)
	o.Int(0x0017, 1)
}

func readBack(t *testing.T, f *mapi.File) *msgtest.Object {
	t.Helper()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if n, err := f.WriteTo(&out); err != nil || n != size || n != int64(out.Len()) {
		t.Fatalf("WriteTo: %d, %v; Size %d, octets %d", n, err, size, out.Len())
	}
	o, err := msgtest.Read(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range o.Findings {
		t.Error(f)
	}
	return o
}

func TestPropertiesReadBack(t *testing.T) {
	t.Parallel()
	f := mapi.NewFile()
	m := f.Message()
	message(m)
	when := time.Date(2024, 2, 29, 18, 29, 58, 123_456_700, time.UTC)
	m.Time(0x39, when)
	m.Int(0x26, -1)
	m.Binary(0x71, []byte{1, 2, 3})
	m.Binary(0x72, nil)
	m.String(0x3001, "first")
	m.String(0x3001, "the last one counts")
	m.BinaryFunc(0x1013, 9000, func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Repeat("123456789", 1000))
		return err
	})
	m.String(0x1000, "text")
	m.StringFunc(0x7D, 6, func(w io.Writer) error { _, err := w.Write([]byte("a\x00b\x00c\x00")); return err })
	o := readBack(t, f)
	if got := o.Time(0x39); !got.Equal(when) {
		t.Errorf("time %v, want %v", got, when)
	}
	if o.Int(0x26) != -1 {
		t.Errorf("number %d", o.Int(0x26))
	}
	if got := o.Binary(0x71); !bytes.Equal(got, []byte{1, 2, 3}) {
		t.Errorf("octets % x", got)
	}
	if !o.Has(0x72) {
		t.Error("an empty binary property is left out")
	}
	if got := o.Text(0x3001); got != "the last one counts" {
		t.Errorf("text %q", got)
	}
	if o.Sizes[0x10130102] != 9000 {
		t.Errorf("streamed %d octets", o.Sizes[0x10130102])
	}
	if got := o.Text(0x7D); got != "abc" {
		t.Errorf("streamed text %q", got)
	}
}

func TestStrings(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, in, want string }{
		{"ascii", "plain", "plain"},
		{"beyond ascii", "žluťoučký 日本語", "žluťoučký 日本語"},
		{"surrogate pair", "a😀b", "a😀b"},
		{"NUL is dropped", "a\x00b\x00é\x00", "abé"},
		{"no UTF-8", "a\xffé\xc3", "a\ufffdé\ufffd"},
		{"a surrogate alone", "a\xed\xa0\x80b", "a\ufffd\ufffd\ufffdb"},
		{"long", strings.Repeat("é😀x", 50_000), strings.Repeat("é😀x", 50_000)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := mapi.NewFile()
			message(f.Message())
			f.Message().String(0x3001, c.in)
			if got := readBack(t, f).Text(0x3001); got != c.want {
				t.Errorf("got %.40q, want %.40q", got, c.want)
			}
		})
	}
	t.Run("empty ones are left out", func(t *testing.T) {
		t.Parallel()
		f := mapi.NewFile()
		message(f.Message())
		f.Message().String(0x3001, "")
		f.Message().String(0x3002, "\x00")
		if o := readBack(t, f); o.Has(0x3001) || o.Has(0x3002) {
			t.Error("an empty text was written")
		}
	})
}

func TestTimesThatReadersRefuse(t *testing.T) {
	t.Parallel()
	for year, want := range map[int]bool{1: false, 1899: false, 1900: true, 2024: true, 2103: true, 2104: false, 9999: false} {
		f := mapi.NewFile()
		message(f.Message())
		if got := f.Message().Time(0x39, time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("%d: taken %v, want %v", year, got, want)
		}
		if o := readBack(t, f); o.Has(0x39) != want {
			t.Errorf("%d: written %v, want %v", year, o.Has(0x39), want)
		}
	}
}

func TestNamedProperties(t *testing.T) {
	t.Parallel()
	f := mapi.NewFile()
	m := f.Message()
	message(m)
	words, _ := f.NamedString(mapi.PublicStrings, "Keywords")
	m.Strings(words, []string{"alpha", "βeta", ""})
	again, _ := f.NamedString(mapi.PublicStrings, "Keywords")
	if again != words {
		t.Errorf("one name has ids %X and %X", words, again)
	}
	flag, _ := f.Named(mapi.Common, 0x8530)
	m.String(flag, "Follow up")
	// Hundreds of names: many share a hash stream.
	for i := range 300 {
		id, ok := f.NamedString(mapi.InternetHeaders, fmt.Sprintf("X-Header-%d", i))
		if !ok {
			t.Fatal("no room for 300 names")
		}
		m.String(id, fmt.Sprint(i))
	}
	o := readBack(t, f)
	if got := o.Lists[uint32(o.Names["public/Keywords"])<<16|0x101F]; !slices.Equal(got, []string{"alpha", "βeta", ""}) {
		t.Errorf("keywords %q", got)
	}
	if got := o.Text(o.Names["0820060000000000c000000000000046/8530"]); got != "Follow up" {
		t.Errorf("flag %q", got)
	}
	if got := o.Text(o.Names["8603020000000000c000000000000046/x-header-299"]); got != "299" {
		t.Errorf("header %q", got)
	}
}

func TestTooManyNames(t *testing.T) {
	t.Parallel()
	f := mapi.NewFile()
	message(f.Message())
	taken := 0
	for i := range 0x8000 {
		if id, ok := f.Named(mapi.Common, uint32(i)); ok {
			taken++
			if id < 0x8000 || id > 0xFFFD {
				t.Fatalf("id %X", id)
			}
		}
	}
	if taken != 0x7FFE {
		t.Errorf("%d names were taken", taken)
	}
	readBack(t, f)
}

func TestObjectsWithinObjects(t *testing.T) {
	t.Parallel()
	f := mapi.NewFile()
	for round := range 2 { // the second in used memory
		f.Reset()
		m := f.Message()
		for depth := range 40 {
			message(m)
			m.String(0x0037, fmt.Sprint("level ", depth))
			m.String(0x0E1D, fmt.Sprint("level ", depth))
			m.String(0x0E04, "a; b")
			for i, n := range []string{"a", "b"} {
				r := m.AddRecipient()
				r.Int(0x3000, int32(i))
				r.Int(0x0C15, 1)
				r.String(0x3001, n)
			}
			a := m.AddAttachment()
			a.Int(0x3705, 1)
			a.Int(0x0E21, 0)
			a.Binary(0x3701, []byte("data"))
			a.String(0x3707, "name.txt")
			a.String(0x3704, "name.txt")
			e := m.AddAttachment()
			e.Int(0x3705, 5)
			e.Int(0x0E21, 1)
			m = e.AddMessage(0x3701)
		}
		message(m)
		o := readBack(t, f)
		for depth := range 40 {
			if got := o.Text(0x37); got != fmt.Sprint("level ", depth) || len(o.Recipients) != 2 || len(o.Attachments) != 2 {
				t.Fatalf("round %d, depth %d: %q, %d recipients, %d attachments", round, depth, got, len(o.Recipients), len(o.Attachments))
			}
			o = o.Attachments[1].Message
		}
	}
}

func TestLimitsOfTables(t *testing.T) {
	t.Parallel()
	f := mapi.NewFile()
	m := f.Message()
	message(m)
	for i := range mapi.Limit {
		r := m.AddRecipient()
		r.Int(0x3000, int32(i))
		r.Int(0x0C15, 3)
		a := m.AddAttachment()
		a.Int(0x3705, 1)
		a.Int(0x0E21, int32(i))
		a.Binary(0x3701, nil)
		a.String(0x3707, "n")
		a.String(0x3704, "n")
	}
	m.String(0x0E02, strings.Repeat("; ", mapi.Limit-1))
	if o := readBack(t, f); len(o.Recipients) != mapi.Limit || len(o.Attachments) != mapi.Limit {
		t.Errorf("%d recipients, %d attachments", len(o.Recipients), len(o.Attachments))
	}
}
