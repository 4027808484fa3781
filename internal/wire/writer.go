package wire

import (
	"io"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/arena"
	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/message"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// copyLimit is the largest piece of a body that is copied into a shared
// buffer; a larger one goes into the frame with the buffer it was read into.
const copyLimit = 64 << 10

// A frame with less data than fullEnough leaves at most every pace: a stream
// that is busy would else send one for each message, and a frame costs both
// sides far more than a small message does. What comes after a pause leaves at
// once.
const (
	pace       = time.Millisecond
	fullEnough = 128 << 10
)

// maxWaiting is how many full frames wait for the stream before the writer's
// caller does.
const maxWaiting = 2

// A writer holds at most about maxUnread places of shared memory that the other
// side hasn't freed. Nothing tells when it does, so that it is looked for.
const (
	maxUnread = 16
	look      = 100 * time.Microsecond
	mostLooks = 100
)

// Writer puts messages into frames and sends them from a goroutine of its own:
// whatever has gathered goes out whenever the stream can take it, so that a
// lone message leaves at once and many share frames under load.
//
// Put, Lanes, Pull and Flush may be called from several goroutines, but only one at a
// time calls Put.
type Writer struct {
	send    func(*Frame) error
	memory  *Memory
	begin   []byte      // Put's scratch
	scratch piece       // Put's: what bodies are read into
	lent    arena.Turns // places of shared memory that were sent; guarded by mu

	unlooked int // Put's: octets since room looked

	mu      sync.Mutex
	changed sync.Cond
	cur     *Frame
	waiting []*Frame
	spare   []byte      // events of a frame that was sent
	sent    time.Time   // when the last frame was
	timer   *time.Timer // ends a wait for the pace
	paced   bool        // the sender waits for it
	closed  bool
	err     error
	done    chan struct{}
}

// NewWriter returns a writer that sends with send, which is called from one
// goroutine. Close must be called.
func NewWriter(memory *Memory, send func(*Frame) error) *Writer {
	w := &Writer{send: send, memory: memory, cur: &Frame{}, done: make(chan struct{})}
	w.changed.L = &w.mu
	go w.run()
	return w
}

func (w *Writer) run() {
	defer close(w.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for w.err == nil && len(w.waiting) == 0 && !w.closed && (w.cur.empty() || w.pacing()) {
			w.changed.Wait()
		}
		w.paced = false
		if w.err != nil {
			return
		}
		var f *Frame
		switch {
		case len(w.waiting) > 0:
			f = w.waiting[0]
			w.waiting = w.waiting[1:]
			w.changed.Broadcast()
		case !w.cur.empty():
			f = w.cur
			w.next()
		default:
			return
		}
		f.seal()
		for _, p := range f.data {
			if p.place.OK() {
				w.lent.Send(p.place)
			}
		}
		w.mu.Unlock()
		err := w.send(f)
		w.mu.Lock()
		w.spare, w.sent = f.events, time.Now()
		if err != nil && w.err == nil {
			w.err = err
			w.changed.Broadcast()
		}
	}
}

// next begins a frame, with the memory of one that was sent.
func (w *Writer) next() {
	w.cur = &Frame{events: w.spare[:0]}
	w.spare = nil
}

// pacing reports whether the current frame is to wait for more. A timer ends
// the wait.
func (w *Writer) pacing() bool {
	if w.cur.ready() {
		return false
	}
	left := pace - time.Since(w.sent)
	if left <= 0 {
		return false
	}
	w.paced = true
	if w.timer == nil {
		w.timer = time.AfterFunc(left, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.changed.Broadcast()
		})
	} else {
		w.timer.Reset(left)
	}
	return true
}

// Session says which session the stream is for; before anything else.
func (w *Writer) Session(session uint64) {
	w.mu.Lock()
	w.cur.session, w.cur.urgent = session, true
	w.changed.Broadcast()
	w.mu.Unlock()
}

// Lanes tells the other side that so many calls may run from now on.
func (w *Writer) Lanes(n int) { w.signal(fieldLanes, n) }

// Pull asks the other side for so many more batches of ids.
func (w *Writer) Pull(n int) { w.signal(fieldPull, n) }

func (w *Writer) signal(field protowire.Number, n int) {
	w.mu.Lock()
	w.cur.signal(field, uint32(n))
	w.cur.urgent = true
	w.changed.Broadcast()
	w.mu.Unlock()
}

// Flush has what was put sent without waiting for more: where the other side
// must answer before there is any. It doesn't wait for it.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cur.empty() {
		w.cur.urgent = true
		w.changed.Broadcast()
	}
}

// Refuse answers with an error instead of a message.
func (w *Writer) Refuse(begin *pluginpb.Begin, cause error) error {
	fail, err := proto.Marshal(ErrorToPB(cause))
	if err != nil {
		return err
	}
	if err := w.encode(begin); err != nil {
		return err
	}
	return w.append(w.begin, nil, false, nil, fail)
}

// Head returns what Put sends ahead of m's body. An id of the mailbox home is
// sent without it.
func Head(m *message.Message, home string) *pluginpb.Begin {
	return &pluginpb.Begin{
		Id: IDToPB(m.ID, home), Summary: SummaryToPB(&m.Summary),
		Record: recordToPB(m.Record), Assembled: m.Assembled,
	}
}

// Put sends a message: its head, and its body read to the end. It returns when
// all of it is handed over, not when it is sent. broken is the error of the
// body's Read: the message was then sent as one that isn't whole. err is that
// of the stream, which has ended.
func (w *Writer) Put(begin *pluginpb.Begin, body *message.Body) (broken, err error) {
	if body != nil {
		begin.HasBody, begin.BodySize, begin.Summed = true, body.Size(), body.Summed()
	}
	if err := w.encode(begin); err != nil {
		return nil, err
	}
	if body == nil {
		return nil, w.append(w.begin, nil, true, nil, nil)
	}
	if b, ok := body.Bytes(); ok {
		return nil, w.copied(b, body.SHA256())
	}
	head := w.begin
	for {
		n, err := w.fill(body)
		if err == nil {
			if err := w.append(head, w.read(n), false, nil, nil); err != nil {
				return nil, err
			}
			head = nil
			continue
		}
		if err == io.EOF {
			return nil, w.append(head, w.read(n), true, body.SHA256(), nil)
		}
		fail, mErr := proto.Marshal(ErrorToPB(err))
		if mErr != nil {
			return nil, mErr
		}
		return err, w.append(head, nil, false, nil, fail)
	}
}

// room waits while the other side is behind, though not for long: what is on its
// way should stay in the processor's cache. A reader that is far behind has the
// stream's window to hold us up.
func (w *Writer) room() {
	if w.unlooked < MaxFrame {
		return
	}
	w.unlooked = 0
	for range mostLooks {
		w.mu.Lock()
		full := w.lent.Unread() >= maxUnread && w.err == nil
		w.mu.Unlock()
		if !full {
			return
		}
		time.Sleep(look)
	}
}

// copied sends a body that is in memory, of the message encoded in begin. The
// memory isn't ours to keep, so that all of it is copied.
func (w *Writer) copied(b, sum []byte) error {
	head := w.begin
	for len(b) > MaxFrame {
		if err := w.append(head, b[:MaxFrame], false, nil, nil); err != nil {
			return err
		}
		head, b = nil, b[MaxFrame:]
	}
	return w.append(head, b, true, sum, nil)
}

func (w *Writer) encode(begin *pluginpb.Begin) (err error) {
	w.begin, err = appendBegin(w.begin[:0], begin)
	return err
}

// fill reads a frame's worth of r into scratch. The error is io.EOF when all
// of r was read.
func (w *Writer) fill(r io.Reader) (n int, err error) {
	if w.scratch.buf == nil {
		w.scratch = w.memory.get(MaxFrame)
	}
	for b := *w.scratch.buf; n < len(b) && err == nil; {
		var k int
		k, err = r.Read(b[n:])
		n += k
	}
	return n, err
}

// read returns the first n octets of scratch, shortened to them.
func (w *Writer) read(n int) []byte { return (*w.scratch.buf)[:n] }

// append adds one event with its data to the current frame, or to the next
// when it doesn't fit. data that starts scratch is given away when it is
// large, else copied.
func (w *Writer) append(begin, data []byte, end bool, sum, fail []byte) error {
	w.unlooked += len(data)
	w.room()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cur.size+len(data) > MaxFrame || len(w.cur.events)+len(begin) > maxEvents && !w.cur.empty() {
		for len(w.waiting) >= maxWaiting && w.err == nil {
			w.changed.Wait()
		}
		if !w.cur.empty() { // the sender may have taken it meanwhile
			w.waiting = append(w.waiting, w.cur)
			w.next()
		}
	}
	if w.err != nil {
		return w.err
	}
	if len(data) > copyLimit && w.scratch.buf != nil && &data[0] == &(*w.scratch.buf)[0] {
		*w.scratch.buf = data
		w.cur.give(w.scratch)
		w.scratch = piece{}
	} else {
		w.cur.write(data, w.memory)
	}
	w.cur.event(begin, len(data), end, sum, fail)
	if !w.paced || w.cur.ready() || len(w.waiting) > 0 {
		w.changed.Broadcast()
	}
	return nil
}

// Close sends what is left, cause with it when it isn't nil, and waits until
// all is handed to the stream. It returns the error of the stream.
func (w *Writer) Close(cause error) error {
	w.mu.Lock()
	if cause != nil {
		w.cur.err = ErrorToPB(cause)
	}
	w.closed = true
	w.changed.Broadcast()
	w.mu.Unlock()
	<-w.done
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.scratch.buf != nil {
		w.memory.put(w.scratch)
		w.scratch = piece{}
	}
	for _, f := range append(w.waiting, w.cur) {
		f.drop(w.memory)
	}
	if w.err != nil {
		w.Reclaim()
	}
	return w.err
}

// Reclaim takes back the shared memory of frames that nobody reads any more:
// after Close, where the other side has given the stream up.
func (w *Writer) Reclaim() { w.lent.Reclaim() }
