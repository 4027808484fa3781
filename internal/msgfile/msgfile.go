// Package msgfile reads of an Outlook .msg file what can be held against the
// mail that it was made of: its subject, its Message-ID, its header block, its
// text and the octets of its attachments (MS-OXMSG §2).
package msgfile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/richardlehane/mscfb"
)

// File is what was read.
type File struct {
	Subject     string
	MessageID   string // with its angle brackets
	Headers     string // the header block of the mail, where the file has it
	Text        string // the first MiB of the plain text
	Attachments []Attachment
}

// Attachment is one attachment. Those that are messages of their own have no
// sum.
type Attachment struct {
	Name   string
	Size   int64
	SHA256 string // hex
}

// Streams of MS-OXPROPS properties: id and type.
const (
	subject   = "__substg1.0_0037001F"
	messageID = "__substg1.0_1035001F"
	headers   = "__substg1.0_007D001F"
	text      = "__substg1.0_1000001F"
	attachDir = "__attach_version1.0_#"
	longName  = "__substg1.0_3707001F"
	data      = "__substg1.0_37010102"
	fixed     = "__properties_version1.0"
)

// keep is how many octets of a text are read.
const keep = 2 << 20

// pieces: the library copies what is left of a stream for each Read.
const pieces = 32 << 10

// Read reads a file. An error means that it is no .msg file, or one that is
// broken.
func Read(file io.ReaderAt) (f *File, err error) {
	defer func() {
		// The library trusts lengths that a broken file may lie about.
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("the compound file is broken: %v", p)
		}
	}()
	doc, err := mscfb.New(file)
	if err != nil {
		return nil, fmt.Errorf("it is no compound file: %w", err)
	}
	f = &File{}
	found := false
	attachments := map[string]int{}
	buf := make([]byte, pieces)
	for e, err := doc.Next(); ; e, err = doc.Next() {
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the compound file: %w", err)
		}
		if e.FileInfo().IsDir() {
			continue
		}
		switch at := e.Path; {
		case len(at) == 0 && e.Name == fixed:
			found = true
		case len(at) == 0:
			err = f.text(e, buf)
		case len(at) == 1 && strings.HasPrefix(at[0], attachDir):
			i, ok := attachments[at[0]]
			if !ok {
				i = len(f.Attachments)
				attachments[at[0]] = i
				f.Attachments = append(f.Attachments, Attachment{})
			}
			err = f.Attachments[i].read(e, buf)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", e.Name, err)
		}
	}
	if !found {
		return nil, errors.New("it is a compound file, and no message")
	}
	return f, nil
}

func (f *File) text(e *mscfb.File, buf []byte) (err error) {
	switch e.Name {
	case subject:
		f.Subject, err = read16(e, buf)
	case messageID:
		f.MessageID, err = read16(e, buf)
	case headers:
		f.Headers, err = read16(e, buf)
	case text:
		f.Text, err = read16(e, buf)
	}
	return err
}

func (a *Attachment) read(e *mscfb.File, buf []byte) (err error) {
	switch e.Name {
	case longName:
		a.Name, err = read16(e, buf)
	case data:
		sum := sha256.New()
		err = each(e, buf, func(b []byte) { sum.Write(b) })
		a.Size, a.SHA256 = e.Size, hex.EncodeToString(sum.Sum(nil))
	}
	return err
}

// each calls f with the octets of a stream, to its end.
func each(e *mscfb.File, buf []byte, f func([]byte)) error {
	for n := int64(0); n < e.Size; {
		got, err := e.Read(buf)
		f(buf[:got])
		n += int64(got)
		if n < e.Size && err != nil {
			return fmt.Errorf("%d of %d octets can be read: %w", n, e.Size, err)
		}
		if got == 0 && err == nil {
			return fmt.Errorf("%d of %d octets can be read", n, e.Size)
		}
	}
	return nil
}

// read16 reads a text in UTF-16, of a long one the beginning.
func read16(e *mscfb.File, buf []byte) (string, error) {
	var b []byte
	err := each(e, buf, func(p []byte) { b = append(b, p[:min(len(p), keep-len(b))]...) })
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = uint16(b[2*i]) | uint16(b[2*i+1])<<8
	}
	return strings.TrimRight(string(utf16.Decode(u)), "\x00"), err
}
