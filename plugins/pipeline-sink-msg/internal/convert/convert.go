// Package convert maps a mail (RFC 5322 and MIME) to a message of MAPI, as
// MS-OXCMAIL describes it and Outlook reads it.
//
// Nothing of a mail is dropped: a part that is neither the text nor the HTML
// of the message is an attachment, and where a bound of the format or of this
// package cuts something off, the mail itself is attached as original.eml.
package convert

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/cfb"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/mapi"
)

// Options is what the user may choose.
type Options struct {
	RTF  bool // also write the HTML encapsulated in RTF (MS-OXRTFEX)
	UTF8 bool // write HTML as UTF-8 always; else in its own code page where readers know it
}

// Envelope is what the source knows and the mail doesn't.
type Envelope struct {
	InternalDate time.Time // zero when the source has none
	HaveFlags    bool      // Flags and Keywords were asked for and answered
	Flags        []string  // with backslash
	Keywords     []string
}

// The bounds of what is read into memory (I5). Larger texts are attachments,
// which are streamed.
const (
	maxText    = 2 << 20 // octets of a text or HTML that becomes the body
	maxHeaders = 1 << 20 // octets of the header block that stand in 007D
	maxNesting = 50      // messages within messages
	maxNamed   = 500     // X- fields that become properties
)

// Converter turns mails into .msg files, one at a time. It keeps its memory
// between them. It is for one goroutine.
type Converter struct {
	file    *mapi.File
	options Options
	src     io.ReaderAt
	size    int64
	copied  []byte // of streams
	rows    []row
	scratch []byte
	header  *message.Header
	err     error // of reading the mail
}

// New returns a converter.
func New(o Options) *Converter {
	return &Converter{file: mapi.NewFile(), options: o}
}

// Convert reads the mail that is the first size octets of src. On success
// WriteTo gives the .msg; src must stay readable until then. An error of class
// Message says that this mail can't become a .msg; any other comes from src.
func (c *Converter) Convert(src io.ReaderAt, size int64, env Envelope) error {
	c.file.Reset()
	c.src, c.size, c.err = src, size, nil
	root, problems, err := message.Read(src, size)
	if err != nil {
		return fmt.Errorf("read the message: %w", err)
	}
	b := builder{c: c, o: c.file.Message(), e: root, env: &env}
	b.incomplete = cutShort(problems)
	b.message()
	c.header = b.h
	if c.err != nil {
		return fmt.Errorf("read the message: %w", c.err)
	}
	if _, err := c.file.Size(); err != nil {
		return c.refuse(err)
	}
	return nil
}

// Header returns the header of the mail of the last Convert.
func (c *Converter) Header() *message.Header { return c.header }

// Size returns the length of the .msg in octets.
func (c *Converter) Size() int64 {
	n, _ := c.file.Size()
	return n
}

// WriteTo writes the .msg of the last Convert.
func (c *Converter) WriteTo(w io.Writer) (int64, error) {
	n, err := c.file.WriteTo(w)
	if err != nil {
		return n, fmt.Errorf("write the .msg: %w", err)
	}
	return n, nil
}

func (c *Converter) refuse(err error) error {
	if errors.Is(err, cfb.ErrTooLarge) {
		return fault.Wrap(fault.Message, fault.New(fault.Message, "%w", err).WithReason("too_large").
			WithHint("export this message with the eml sink, which has no such bound"), "a .msg of a mail of %d octets", c.size)
	}
	return fault.Wrap(fault.Message, fault.New(fault.Message, "%w", err).WithReason("not_convertible"), "convert a mail of %d octets to .msg", c.size)
}

// failed notes an error of reading the mail.
func (c *Converter) failed(err error) {
	if err != nil && c.err == nil {
		c.err = err
	}
}

// cutShort reports whether parts of the mail weren't told apart.
func cutShort(problems []string) bool {
	for _, p := range problems {
		if strings.Contains(p, "aren't told apart") || strings.Contains(p, "not entered") {
			return true
		}
	}
	return false
}

// builder makes one message: the mail's, or one within it.
type builder struct {
	c   *Converter
	o   *mapi.Object
	e   *message.Entity // root of a message
	h   *message.Header
	env *Envelope // nil for a message within another

	depth      int
	opened     bool // a message out of a winmail.dat: attachments and bodies are known
	incomplete bool // something was cut off: the original is attached
	flags      int32

	text, html  *message.Entity
	attachments []attachment
	visible     int    // attachments that aren't hidden
	htmlNames   string // the HTML in lower case, where its parts are looked for
	report      bool   // a delivery report
	failures    []failure
	tnefBodies  tnefBodies
}

// message sets all properties.
func (b *builder) message() {
	h, err := b.e.Header()
	b.c.failed(err)
	b.h = h
	b.flags = flagUnmodified
	b.o.Int(pidStoreSupport, storeUnicode)
	b.o.Int(pidLocale, 0x0409)
	b.gather()
	b.class()
	b.subject()
	b.people()
	b.dates()
	b.marks()
	b.threading()
	b.fields()
	b.bodies()
	b.attach()
	b.o.Int(pidMessageFlags, b.flags)
}
