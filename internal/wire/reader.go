package wire

import (
	"crypto/sha256"
	"io"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Item is one message of a stream of frames, or the error in its place.
type Item struct {
	Begin *pluginpb.Begin
	// Body is nil where there is none. It is valid until the next call of
	// Next.
	Body *message.Body
	// Err: the message can't be had, or broke off in the frame it began in.
	Err error
}

// Message returns the item as the message that it carries, valid as long as
// the item's body. One that broke off
// gets a body that ends in the error, so that its reader discards it.
func (i Item) Message() *message.Message {
	m := &message.Message{
		Summary:   SummaryFromPB(i.Begin.GetSummary(), IDFromPB(i.Begin.GetId(), "")),
		Body:      i.Body,
		Record:    recordFromPB(i.Begin.GetRecord()),
		Assembled: i.Begin.GetAssembled(),
	}
	if i.Err != nil {
		m.Body = message.NewBody(broken{i.Err}, i.Begin.GetBodySize(), nil)
	}
	return m
}

// broken is a body that ends before its first octet.
type broken struct{ err error }

// Read returns the error.
func (b broken) Read([]byte) (int, error) { return 0, b.err }

// Reader takes messages out of frames. It is used by one goroutine. A small
// body is handed over where it lies in the frame; a large one is streamed.
type Reader struct {
	// Recv receives the next frame; io.EOF ends the stream well.
	Recv func(*Inbound) error
	// Redact takes secrets out of the errors of the other side; may be nil.
	Redact func(string) string
	// Lanes and Pull are called for the signals of a source; may be nil.
	Lanes, Pull func(n int)
	// Peer names the other side in errors, as in "plugin imap".
	Peer string
	// Spool is for bodies that are too large for memory; may be nil.
	Spool *message.Spool

	frame   Inbound
	next    int    // index of the next event of frame
	data    cursor // what no event has taken yet
	scratch []byte // small bodies that lie in several buffers
	open    *stream
	session uint64
	err     error // terminal
}

// Session returns what the first frame says, once it was received.
func (r *Reader) Session() uint64 { return r.session }

// Start receives the first frame and returns its session.
func (r *Reader) Start() (uint64, error) {
	if err := r.receive(); err != nil {
		return 0, err
	}
	return r.session, nil
}

// Next returns the next message. What wasn't read of the one before is passed
// over. io.EOF means that the stream ended well and between messages; any
// other error is terminal.
func (r *Reader) Next() (Item, error) {
	if r.open != nil {
		if err := r.open.discard(); err != nil {
			return Item{}, err
		}
	}
	for {
		e, err := r.event()
		if err != nil {
			return Item{}, err
		}
		if e.Begin == nil {
			if e.Body > 0 || e.End || e.Error != nil {
				return Item{}, r.broken("an event belongs to no message")
			}
			continue
		}
		return r.begin(e)
	}
}

func (r *Reader) begin(e *pluginpb.Event) (Item, error) {
	b := e.Begin
	if !b.GetHasBody() {
		switch {
		case e.Error != nil:
			return Item{Begin: b, Err: r.error(e.Error)}, nil
		case e.End && e.Body == 0:
			return Item{Begin: b}, nil
		}
		return Item{}, r.broken("a message without a body doesn't end where it begins")
	}
	s := &stream{r: r, size: b.GetBodySize(), left: int(e.Body), summed: b.GetSummed()}
	if e.Error != nil {
		r.data.bytes(s.left)
		return Item{Begin: b, Err: r.error(e.Error)}, nil
	}
	if !e.End {
		r.open = s
		body := message.NewBody(s, s.size, r.Spool)
		if s.summed {
			body.WithSHA256(func() []byte { return s.sum })
		}
		return Item{Begin: b, Body: body}, nil
	}
	if s.size >= 0 && s.size != int64(e.Body) {
		return Item{}, r.broken("a body of %d octets ends after %d", s.size, e.Body)
	}
	body := message.BodyOf(r.small(int(e.Body)))
	if s.summed {
		if len(e.Sha256) != sha256.Size {
			return Item{}, r.broken("a sum of %d octets", len(e.Sha256))
		}
		body.WithSHA256(func() []byte { return e.Sha256 })
	}
	return Item{Begin: b, Body: body}, nil
}

// small returns the next n octets in one piece, never nil.
func (r *Reader) small(n int) []byte {
	if n == 0 || r.data.done() {
		return []byte{}
	}
	if b := r.data.rest[0].ReadOnlyData()[r.data.off:]; len(b) >= n {
		r.data.off += n
		return b[:n:n]
	}
	if cap(r.scratch) < n {
		r.scratch = make([]byte, 0, max(n, 16<<10))
	}
	out := r.scratch[:0]
	for len(out) < n && !r.data.done() {
		b := r.data.rest[0].ReadOnlyData()[r.data.off:]
		b = b[:min(len(b), n-len(out))]
		out = append(out, b...)
		r.data.off += len(b)
	}
	r.scratch = out
	return out
}

// event returns the next event that isn't only a signal.
func (r *Reader) event() (*pluginpb.Event, error) {
	for {
		if r.err != nil {
			return nil, r.err
		}
		for r.next < len(r.frame.events) {
			e := r.frame.events[r.next]
			r.next++
			if e.Lanes > 0 && r.Lanes != nil {
				r.Lanes(int(e.Lanes))
			}
			if e.Pull > 0 && r.Pull != nil {
				r.Pull(int(e.Pull))
			}
			if e.Begin != nil || e.Body > 0 || e.End || e.Error != nil {
				return e, nil
			}
		}
		if r.frame.err != nil {
			return nil, r.fail(ErrorFromPB(r.frame.err))
		}
		if err := r.receive(); err != nil {
			return nil, err
		}
	}
}

func (r *Reader) receive() error {
	r.frame.free()
	if err := r.Recv(&r.frame); err != nil {
		return r.fail(err)
	}
	if err := r.frame.check(); err != nil {
		return r.fail(fault.Wrap(fault.Bug, err, "%s sent a broken frame", r.peer()))
	}
	if r.frame.session != 0 {
		r.session = r.frame.session
	}
	r.next, r.data = 0, cursor{rest: r.frame.data}
	return nil
}

// Close gives back the memory of the last frame.
func (r *Reader) Close() {
	r.frame.free()
	r.open, r.data = nil, cursor{}
	r.err = io.ErrClosedPipe
}

func (r *Reader) fail(err error) error {
	if r.err == nil {
		r.err = err
	}
	return r.err
}

func (r *Reader) broken(format string, args ...any) error {
	return r.fail(fault.New(fault.Bug, r.peer()+" broke the stream of messages: "+format, args...))
}

func (r *Reader) error(p *pluginpb.Error) error { return Redacted(ErrorFromPB(p), r.Redact) }

func (r *Reader) peer() string {
	if r.Peer == "" {
		return "the other side"
	}
	return r.Peer
}

// stream is a body that goes over more than one event.
type stream struct {
	r    *Reader
	size int64 // as announced, -1 unknown
	got  int64
	left int   // octets of the current event
	end  bool  // the current event is the last
	err  error // what Read returns when left is 0

	summed bool   // the end tells the sum of all octets
	sum    []byte // which is this
}

// Read reads the next octets. The end is io.EOF only when the whole body
// came, as its sender said.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := s.piece()
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	s.took(n)
	return n, nil
}

// WriteTo writes what is left to w without a copy in between.
func (s *stream) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		b, err := s.piece()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(b)
		s.took(n)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// piece returns octets where they lie, at least one, or an error.
func (s *stream) piece() ([]byte, error) {
	for s.left == 0 {
		if s.err == nil {
			s.err = s.advance()
		}
		if s.err != nil {
			return nil, s.err
		}
	}
	if s.r.open != s {
		return nil, fault.New(fault.Bug, "a body was read after the call that it was handed to had returned")
	}
	s.r.data.done() // drops buffers that are used up
	b := s.r.data.rest[0].ReadOnlyData()[s.r.data.off:]
	return b[:min(len(b), s.left)], nil
}

func (s *stream) took(n int) {
	s.r.data.off += n
	s.left -= n
	s.got += int64(n)
}

// advance goes to the next event.
func (s *stream) advance() error {
	if s.r.open != s {
		return fault.New(fault.Bug, "a body was read after the call that it was handed to had returned")
	}
	if s.end {
		s.r.open = nil
		if s.size >= 0 && s.got != s.size {
			return fault.New(fault.Bug, "a body of %d octets ends after %d", s.size, s.got)
		}
		return io.EOF
	}
	e, err := s.r.event()
	if err == io.EOF {
		// The end of the stream must never look like that of a body (I1).
		s.r.err = nil
		err = s.r.broken("it ends %d octets into a message", s.got)
	}
	if err != nil {
		return err
	}
	if e.Begin != nil {
		return s.r.broken("a message begins %d octets into another", s.got)
	}
	if e.Error != nil {
		s.r.data.bytes(int(e.Body))
		s.r.open = nil
		return s.r.error(e.Error)
	}
	s.left, s.end = int(e.Body), e.End
	if s.summed && e.End {
		if len(e.Sha256) != sha256.Size {
			return s.r.broken("a sum of %d octets", len(e.Sha256))
		}
		s.sum = e.Sha256
	}
	return nil
}

// discard passes over the rest. Only an error of the stream is returned: that
// of the message itself was its reader's business.
func (s *stream) discard() error {
	for {
		b, err := s.piece()
		if err != nil {
			s.r.open = nil
			if s.r.err != nil {
				return s.r.err
			}
			return nil
		}
		s.took(len(b))
	}
}

var _ io.WriterTo = (*stream)(nil)
