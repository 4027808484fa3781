package browse

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// Wanted names one message of a mailbox. The source was opened with a config
// that picks it, where the source can pick; an empty Wanted is what was picked.
type Wanted struct {
	UID       uint32
	UIDL      string
	MessageID string // with or without its angle brackets
}

// String returns it for errors.
func (w Wanted) String() string {
	switch {
	case w.UID != 0:
		return fmt.Sprintf("message with UID %d", w.UID)
	case w.UIDL != "":
		return "message with the unique id " + Safe(w.UIDL)
	case w.MessageID != "":
		return "message with the Message-ID " + Safe(w.MessageID)
	}
	return "message"
}

func (w Wanted) is(s *message.Summary) bool {
	switch {
	case w.UID != 0:
		return s.ID.UID == w.UID
	case w.UIDL != "":
		return s.ID.UIDL == w.UIDL
	case w.MessageID != "":
		return s.Header != nil && bare(s.Header.MessageID()) == bare(w.MessageID)
	}
	return true
}

func bare(id string) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(id), "<"), ">")
}

// mostFound is how many messages of one name are told.
const mostFound = 5

// find returns the one message that is wanted. None is a fault.Gone, several
// are a fault.Config that names them.
func (s *Source) find(ctx context.Context, mailbox string, w Wanted) (message.ID, error) {
	var needs message.Needs
	if w.MessageID != "" {
		needs = message.NeedHeaders
	}
	var found []message.ID
	for sum, err := range s.Source.List(ctx, source.ListRequest{Mailbox: mailbox, Needs: needs}) {
		if err != nil {
			return message.ID{}, s.explain(ctx, mailbox, err)
		}
		if w.is(&sum) {
			sum.ID.Source = s.Name
			if found = append(found, sum.ID); len(found) > mostFound {
				break
			}
		}
	}
	where := mailbox
	if where == "" {
		where = s.Name
	}
	switch len(found) {
	case 0:
		return message.ID{}, fault.New(fault.Gone, "there is no %s in %s", w, Safe(where)).WithHint("pipeline ls %s shows what there is", Safe(strings.TrimSpace(s.Name+" "+mailbox)))
	case 1:
		return found[0], nil
	}
	var names []string
	for _, id := range found[:min(len(found), mostFound)] {
		names = append(names, Safe(idText(id)))
	}
	more := ""
	if len(found) > mostFound {
		more = ", and more"
	}
	return message.ID{}, fault.New(fault.Config, "there is more than one %s in %s: %s%s", w, Safe(where), strings.Join(names, ", "), more).
		WithHint("name one by --uid or --uidl")
}

// Get fetches the message that is wanted and hands it to do, with its header.
// Its body is read once, to its end.
func (s *Source) Get(ctx context.Context, mailbox string, w Wanted, do func(*message.Message) error) error {
	id, err := s.find(ctx, mailbox, w)
	if err != nil {
		return err
	}
	wire := id
	wire.Source = ""
	batch := func(yield func([]message.ID) bool) { yield([]message.ID{wire}) }
	needs := s.Provides&message.AllSummary&^message.NeedStructure | message.NeedBody // the structure comes from the octets
	for got, err := range s.Source.Fetch(ctx, source.FetchRequest{Mailbox: id.Mailbox, Needs: needs, IDs: batch}) {
		if err == nil {
			err = got.Err
		}
		if err != nil {
			return fmt.Errorf("source %s: %w", s.Name, err)
		}
		got.Message.ID, got.Message.Vars = id, s.Vars
		return do(got.Message)
	}
	return fault.New(fault.Bug, "source %s answered nothing for %s", s.Name, id)
}

// WriteEML writes a message's octets.
func WriteEML(w io.Writer, m *message.Message) error {
	_, err := io.Copy(w, m.Body)
	return err
}

// WriteJSON writes what a message is as a JSON object: all fields that it has,
// its size in octets, its sha256, and its attachments as measured from the
// octets.
func WriteJSON(w io.Writer, m *message.Message, base string) error {
	sum := sha256.New()
	count := &counter{}
	root, _, err := message.ReadStructure(io.TeeReader(m.Body, io.MultiWriter(sum, count)))
	if err != nil {
		return err
	}
	s := m.Summary
	s.Structure = root
	s.Have |= message.NeedStructure
	fields := Fields(base)
	text := func(name, value string) Field {
		return Field{Name: name, Value: func(*message.Summary) (any, bool) { return value, true }}
	}
	fields = append(fields, Field{Name: "octets", Value: func(*message.Summary) (any, bool) { return count.n, true }},
		text("sha256", hex.EncodeToString(sum.Sum(nil))))
	b, err := Object(&s, fields)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// Harmless returns a writer that shows octets on a terminal: line by line as
// they are, but for what would do something to it. Flush must be called.
func Harmless(w io.Writer) *HarmlessWriter {
	pr, pw := io.Pipe()
	h := &HarmlessWriter{pw, make(chan error, 1)}
	go func() {
		err := filter(w, pr)
		pr.CloseWithError(err)
		h.done <- err
	}()
	return h
}

// HarmlessWriter is what Harmless returns.
type HarmlessWriter struct {
	*io.PipeWriter
	done chan error
}

// Flush writes what is left, and returns what went wrong.
func (h *HarmlessWriter) Flush() error {
	_ = h.PipeWriter.Close()
	return <-h.done
}

func filter(w io.Writer, r io.Reader) error {
	in, out := bufio.NewReader(r), bufio.NewWriter(w)
	for {
		c, n, err := in.ReadRune()
		if err == io.EOF {
			return out.Flush()
		}
		switch {
		case err != nil:
			return err
		case c == '\r':
			continue
		case c != '\n' && c != '\t' && unsafe(c), n == 1 && c == unicode.ReplacementChar:
			c = unicode.ReplacementChar
		}
		if _, err := out.WriteRune(c); err != nil {
			return err
		}
	}
}
