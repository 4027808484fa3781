package tnef_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/tnef"
)

// stream builds a TNEF stream.
type stream struct{ bytes.Buffer }

func begin() *stream {
	s := &stream{}
	s.u32(0x223E9F78)
	s.Write([]byte{1, 0})
	return s
}

func (s *stream) u32(v uint32) { s.Write(binary.LittleEndian.AppendUint32(nil, v)) }

func (s *stream) attribute(level byte, id uint32, data []byte) *stream {
	s.WriteByte(level)
	s.u32(id)
	s.u32(uint32(len(data)))
	s.Write(data)
	s.Write([]byte{0, 0})
	return s
}

// property appends a MAPI property with one value to a list.
func property(list []byte, tag uint32, value []byte) []byte {
	list = binary.LittleEndian.AppendUint16(list, uint16(tag))
	list = binary.LittleEndian.AppendUint16(list, uint16(tag>>16))
	switch tag & 0xFFFF {
	case 0x1E, 0x1F, 0x102, 0xD:
		list = binary.LittleEndian.AppendUint32(list, 1)
		list = binary.LittleEndian.AppendUint32(list, uint32(len(value)))
	}
	list = append(list, value...)
	for len(value)%4 != 0 {
		list, value = append(list, 0), append(value, 0)
	}
	return list
}

func properties(n uint32, list []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, n), list...)
}

func wide(s string) []byte {
	var out []byte
	for _, r := range s {
		out = append(out, byte(r), byte(r>>8))
	}
	return append(out, 0, 0)
}

func full() []byte {
	var message, file, nested []byte
	message = property(message, 0x10130102, []byte("<p>x</p>"))
	message = property(message, 0x3FDE0003, []byte{0xE9, 0xFD, 0, 0})
	message = property(message, 0x10090102, []byte("rtf"))
	file = property(file, 0x3707001F, wide("žlutý.txt"))
	file = property(file, 0x370E001E, []byte("text/plain\x00"))
	file = property(file, 0x3712001E, []byte("<id@x>\x00"))
	nested = property(nested, 0x3701000D, append(make([]byte, 16), "inner stream"...))
	s := begin()
	s.attribute(1, 0x00069007, []byte{0xE2, 4, 0, 0, 0, 0, 0, 0})
	s.attribute(1, 0x0002800C, []byte("\x9elut\xfd\x00"))
	s.attribute(1, 0x00069003, properties(3, message))
	s.attribute(1, 0x00018004, []byte("the subject\x00"))
	s.attribute(1, 0x00008000, []byte("\x04\x00\x18\x00\x04\x00\x0d\x00Ann\x00SMTP:ann@e.o\x00"))
	s.attribute(1, 0x00038005, []byte{0xE8, 7, 2, 0, 29, 0, 18, 0, 30, 0, 5, 0, 4, 0})
	var to, cc []byte
	to = property(property(to, 0x3001001F, wide("Bob")), 0x3003001E, []byte("bob@e.o\x00"))
	cc = property(property(cc, 0x0C150003, []byte{2, 0, 0, 0}), 0x39FE001F, wide("cc@e.o"))
	s.attribute(1, 0x00069004, append([]byte{2, 0, 0, 0}, append(properties(2, to), properties(2, cc)...)...))
	s.attribute(2, 0x00069002, make([]byte, 14))
	s.attribute(2, 0x00018010, []byte("ZLUTY~1.TXT\x00"))
	s.attribute(2, 0x0006800F, []byte("the octets"))
	s.attribute(2, 0x00069005, properties(3, file))
	s.attribute(2, 0x00069002, make([]byte, 14))
	s.attribute(2, 0x00069005, properties(1, nested))
	return s.Bytes()
}

func TestRead(t *testing.T) {
	t.Parallel()
	b := full()
	m, err := tnef.Read(iotest.OneByteReader(bytes.NewReader(b)))
	if err != nil {
		t.Fatal(err)
	}
	if m.Text != "žlutý" || string(m.HTML) != "<p>x</p>" || m.Codepage != 65001 || string(m.RTF) != "rtf" {
		t.Errorf("text %q, html %q in %d, rtf %q", m.Text, m.HTML, m.Codepage, m.RTF)
	}
	if m.Subject != "the subject" || m.From != (tnef.Person{Name: "Ann", Address: "ann@e.o"}) || !m.Sent.Equal(time.Date(2024, 2, 29, 18, 30, 5, 0, time.UTC)) {
		t.Errorf("subject %q, from %v, sent %v", m.Subject, m.From, m.Sent)
	}
	rows := []tnef.Recipient{{Person: tnef.Person{Name: "Bob", Address: "bob@e.o"}, Kind: 1}, {Person: tnef.Person{Address: "cc@e.o"}, Kind: 2}}
	if !slices.Equal(m.Recipients, rows) {
		t.Errorf("recipients %v", m.Recipients)
	}
	want := []struct {
		name, media, id, data string
		nested                bool
	}{{"žlutý.txt", "text/plain", "id@x", "the octets", false}, {"", "", "", "inner stream", true}}
	if len(m.Attachments) != len(want) {
		t.Fatalf("%d attachments", len(m.Attachments))
	}
	for i, w := range want {
		a := m.Attachments[i]
		if data := string(b[a.Offset : a.Offset+a.Size]); a.Name != w.name || a.MediaType != w.media || a.ContentID != w.id || data != w.data || a.Nested != w.nested {
			t.Errorf("%d: %+v with %q", i, a, data)
		}
	}
}

// TestCut: a stream that ends anywhere but behind an attribute is corrupt.
func TestCut(t *testing.T) {
	t.Parallel()
	b := full()
	whole := 0
	for n := range b {
		_, err := tnef.Read(bytes.NewReader(b[:n]))
		if err == nil {
			whole++
		} else if !errors.Is(err, tnef.ErrCorrupt) {
			t.Fatalf("%d octets: %v", n, err)
		}
	}
	if whole != 13 { // behind the head and the first twelve of thirteen attributes
		t.Errorf("%d cuts were taken for whole", whole)
	}
}

func TestCorrupt(t *testing.T) {
	t.Parallel()
	many := properties(0xFFFFFFFF, property(nil, 0x10130102, []byte("x")))
	count := properties(1, []byte{1, 0x10, 0, 0x30, 0xFF, 0xFF, 0xFF, 0xFF})
	cases := map[string][]byte{
		"nothing":              nil,
		"other signature":      []byte("PK\x03\x04\x00\x00"),
		"level":                begin().attribute(3, 1, nil).Bytes(),
		"data without file":    begin().attribute(2, 0x0006800F, []byte("x")).Bytes(),
		"too many properties":  begin().attribute(1, 0x00069003, many).Bytes(),
		"endless empty values": begin().attribute(1, 0x00069003, count).Bytes(),
	}
	for name, b := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := tnef.Read(bytes.NewReader(b)); !errors.Is(err, tnef.ErrCorrupt) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestReadersErrorComesBack(t *testing.T) {
	t.Parallel()
	broken := errors.New("the source broke")
	b := full()
	for _, n := range []int{0, 3, 10, 40, len(b) - 1} {
		r := io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken))
		if _, err := tnef.Read(r); !errors.Is(err, broken) {
			t.Errorf("behind %d octets: error %v", n, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(full())
	f.Add(begin().Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := tnef.Read(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, tnef.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		for _, a := range m.Attachments {
			if a.Offset < 0 || a.Size < 0 || a.Offset+a.Size > int64(len(b)) {
				t.Errorf("%+v lies outside of %d octets", a, len(b))
			}
		}
	})
}
