package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/relay"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// Sizes that decide how a body travels.
const (
	smallBody  = 1 << 20 // up to here a body is held in memory whole
	headerMost = 1 << 20 // a header block that is longer is read only so far
)

// worker delivers messages to the sinks; one goroutine a lane of a source.
type worker struct {
	e      *Engine
	number int
	buf    []byte // a small body, reused
}

// deliver takes one fetched message through the stages that need its body and
// on to the sinks. When it returns the body has been read; the results come
// later, and the last of them takes the item out of the gate. The error is the
// body's, and has been dealt with but for a death.
func (w *worker) deliver(ctx context.Context, it *item, m *message.Message) error {
	it.big = m.Body.Size() > smallBody || m.Body.Size() < 0
	w.e.enter(it)
	it.outstanding.Store(1)
	faultpoint.Hit("engine.deliver")
	it.assembled = m.Assembled
	merge(&it.sum, &m.Summary)
	if it.big {
		m.Body = message.NewBody(&passing{m.Body, w.e.counters(it.box.account)}, m.Body.Size(), w.e.opts.Spool)
	}
	var err error
	if it.twin != nil {
		err = w.compare(it, m.Body)
	} else if w.e.altering {
		err = w.alter(ctx, it, m.Body)
	} else if it.big {
		err = w.stream(ctx, it, m.Body)
	} else {
		err = w.pass(it, m.Body)
	}
	if err != nil {
		it.aborted.Store(true)
		// Where the whole pass was broken off, the message is not to blame.
		if ctx.Err() == nil || fault.Is(err, fault.Crashed) {
			it.box.account.broken(it, err)
		}
	}
	faultpoint.Hit("engine.delivered")
	w.release(it)
	return err
}

// passing counts the octets of a large body while it passes: a look at the run
// must not take an hour's message for an hour's standstill.
type passing struct {
	body     *message.Body
	counters *Counters
}

func (p *passing) Read(b []byte) (int, error) {
	n, err := p.body.Read(b)
	p.counters.Passed.Add(int64(n))
	return n, err
}

// release gives up one hold on the item; the last one ends its passage.
func (w *worker) release(it *item) {
	if it.outstanding.Add(-1) != 0 {
		return
	}
	it.header = nil
	if it.entry != nil { // fetched again, the octets tell it again
		it.entry.sum.Header = nil
		it.entry.sum.Have &^= message.NeedHeaders
	}
	if !w.e.recorded(it) {
		// Nobody reads it any more: thousands of headers would wait for the
		// commit otherwise (I5).
		it.sum.Header = nil
		it.sum.Have &^= message.NeedHeaders
	}
	w.e.gate.leave(it)
}

// merge adds what came with the body to what the listing told.
func merge(to, from *message.Summary) {
	if from.Have.Has(message.NeedSize) {
		to.Size = from.Size
	}
	if from.Have.Has(message.NeedInternalDate) {
		to.InternalDate = from.InternalDate
	}
	if from.Have.Has(message.NeedFlags) {
		to.Flags, to.Keywords, to.Labels = from.Flags, from.Keywords, from.Labels
	}
	if from.Have.Has(message.NeedGmail) {
		to.Gmail = from.Gmail
	}
	if from.ObjectID != "" {
		to.ObjectID = from.ObjectID
	}
	if from.Place != "" {
		to.Place = from.Place
	}
	if from.SequenceNumber != 0 {
		to.SequenceNumber = from.SequenceNumber
	}
	if from.Extra != nil {
		to.Extra = from.Extra
	}
	to.Have |= from.Have &^ (message.NeedHeaders | message.NeedStructure | message.NeedBody)
}

// take reads a small body into memory, and notes what it is as it came.
func (w *worker) take(it *item, body *message.Body) ([]byte, error) {
	data, ok := body.Bytes()
	if !ok {
		var err error
		if data, err = w.read(body); err != nil {
			return nil, err
		}
	}
	sum := sha256.Sum256(data)
	it.octets, it.sha256 = int64(len(data)), sum[:]
	setHeader(it, data)
	return data, nil
}

// pass delivers a small body from memory.
func (w *worker) pass(it *item, body *message.Body) error {
	data, err := w.take(it, body)
	if err != nil {
		return err
	}
	if w.e.bodyTellsStructure(it) {
		w.e.measure(it, bytes.NewReader(data))
		it.tellStructure()
	}
	routed := w.e.route(it)
	for _, i := range routed {
		w.put(it, i, message.BodyOf(data).WithSHA256(func() []byte { return it.sha256 }))
	}
	if w.e.measures(it) {
		w.e.measure(it, bytes.NewReader(data))
	}
	return nil
}

// bodyTellsStructure reports whether a stage or a `when` reads the structure
// of an item whose source couldn't list it.
func (e *Engine) bodyTellsStructure(it *item) bool {
	return e.readsStructure && !it.sum.Have.Has(message.NeedStructure)
}

func (it *item) tellStructure() {
	it.sum.Structure = it.structure
	it.sum.Have |= message.NeedStructure
}

// read reads a body of known size into the worker's buffer.
func (w *worker) read(body *message.Body) ([]byte, error) {
	if int64(cap(w.buf)) < body.Size()+1 {
		w.buf = make([]byte, 0, max(64<<10, 2*body.Size()))
	}
	buf := bytes.NewBuffer(w.buf[:0])
	if _, err := buf.ReadFrom(body); err != nil {
		return nil, err
	}
	if int64(buf.Len()) != body.Size() {
		return nil, fault.New(fault.Unavailable, "the body has %d octets, %d were announced", buf.Len(), body.Size())
	}
	return buf.Bytes(), nil
}

// stream delivers a large body piece by piece, to all sinks at once.
func (w *worker) stream(ctx context.Context, it *item, body *message.Body) error {
	if w.e.bodyTellsStructure(it) {
		whole, err := body.Whole(ctx)
		if err != nil {
			return err
		}
		defer body.Release()
		w.e.measure(it, whole.Reader())
		it.tellStructure()
	}
	head, err := readHead(body)
	if err != nil {
		return err
	}
	setHeader(it, head)
	routed := w.e.route(it)
	measured := w.e.measures(it)
	if len(routed) == 0 && !measured && !w.e.comparesLater(it) {
		// Nobody wants it: reading on would only cost the user's time.
		return nil
	}
	readers := len(routed)
	if measured {
		readers++
	}
	r := relay.New(readers, &w.e.chunks, w.e.opts.Spool, w.e.opts.patience())
	defer r.Close()
	hash, octets := sha256.New(), int64(0)
	// Nothing is written to the hash any more when a reader has come to the end.
	sum := func() []byte { return hash.Sum(nil) }
	var wg sync.WaitGroup
	for n, i := range routed {
		rd := r.Readers()[n]
		wg.Go(func() {
			defer rd.Close() // a sink that gave up must not hold the others back
			w.put(it, i, message.NewBody(rd, body.Size(), w.e.opts.Spool).WithSHA256(sum))
		})
	}
	if measured {
		rd := r.Readers()[readers-1]
		wg.Go(func() {
			defer rd.Close()
			w.e.measure(it, rd)
		})
	}
	from := &guarded{Reader: io.MultiReader(bytes.NewReader(head), body), size: body.Size(), it: it}
	err = r.Pump(from, func(b []byte) {
		hash.Write(b)
		octets += int64(len(b))
	})
	if err != nil {
		it.aborted.Store(true) // also the spool's errors are none of the sinks'
	}
	wg.Wait()
	if from.err != nil {
		return from.err
	}
	if err != nil {
		return err
	}
	it.octets, it.sha256 = octets, hash.Sum(nil)
	return nil
}

// guarded marks the item aborted before any sink can learn that the body broke
// off, so that the sinks' errors are not taken for their own; and it makes an
// error of a body that ends before its announced size. What readers are told is
// never that a process crashed: it would be taken for the sink's.
type guarded struct {
	io.Reader
	size, read int64
	it         *item
	err        error // why the body broke off
}

func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.Reader.Read(p)
	g.read += int64(n)
	if err == io.EOF && g.size >= 0 && g.read != g.size {
		err = fault.New(fault.Unavailable, "the body has %d octets, %d were announced", g.read, g.size)
	}
	if err != nil && err != io.EOF {
		g.it.aborted.Store(true)
		g.err = err
		err = fault.New(fault.Unavailable, "the body broke off: %v", err)
	}
	return n, err
}

// readHead reads until the header block is complete.
func readHead(body io.Reader) ([]byte, error) {
	head := make([]byte, 0, 64<<10)
	for len(head) < headerMost {
		if len(head) == cap(head) {
			head = append(head, 0)[:len(head)]
		}
		n, err := body.Read(head[len(head):cap(head)])
		from := max(0, len(head)-3)
		head = head[:len(head)+n]
		if err == io.EOF || err == nil && headerEnd(head[from:]) >= 0 {
			return head, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return head, nil
}

// headerEnd returns the offset after the empty line, or -1.
func headerEnd(b []byte) int {
	for i := 0; i < len(b); i++ {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			return -1
		}
		i += j
		rest := b[i+1:]
		if len(rest) > 0 && rest[0] == '\n' {
			return i + 2
		}
		if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return i + 3
		}
	}
	return -1
}

// setHeader takes the header from the octets: whatever the server said of it
// in a listing, this is what is exported. It copies, since the item outlives
// the body.
func setHeader(it *item, head []byte) {
	end := headerEnd(head)
	if end < 0 {
		end = len(head)
	}
	it.sum.Header = message.NewHeader(bytes.Clone(head[:end]))
	it.sum.Have |= message.NeedHeaders
	if it.mark == 0 { // else a stage has changed what came
		it.mark = ledger.Mark(head[:end])
	}
	if it.box.account.plan.After.OlderThan > 0 {
		it.sent = sentAt(it.sum.Header)
	}
}

// put sends the item to one sink. Its octets are here, so it goes on whatever
// becomes of the source meanwhile: the context is the run's. A source that dies
// must not look as if the sink had.
func (w *worker) put(it *item, i int, body *message.Body) {
	o := w.e.outlets[i]
	m := &message.Message{Summary: it.named(), Body: body, Assembled: it.assembled}
	if it.header != nil {
		m.Header = it.header
	}
	needs := o.plan.Prepared.Needs
	if !needs.Has(message.NeedHeaders) {
		m.Header = nil
	}
	m.Structure = nil
	it.slots[i].state = slotSent
	it.outstanding.Add(1)
	err := o.put(w.e.ctx, w.number, m, func(gen int, r sink.Receipt, err error) {
		w.e.answer(it, i, gen, r, err)
		w.release(it)
	})
	if err != nil {
		w.e.answer(it, i, 0, sink.Receipt{}, err)
		w.release(it)
	}
}

// recorded reports whether a record sink is still to get the item, or a data
// sink must get it again.
func (e *Engine) recorded(it *item) bool {
	for i := range it.slots {
		if it.slots[i].state == slotTodo {
			return true
		}
	}
	return false
}

// measures reports whether the item's structure is to be measured.
func (e *Engine) measures(it *item) bool {
	if it.final != nil || it.structure != nil {
		return false
	}
	for i := range it.slots {
		p := &e.outlets[i].plan.Prepared
		if p.Record && p.Needs.Has(message.NeedStructure) && it.slots[i].state == slotTodo {
			return true
		}
	}
	return false
}

// measure reads the structure from the octets.
func (e *Engine) measure(it *item, r io.Reader) { it.measured(message.ReadStructure(r)) }

// measureWhole is measure for a body that stages are to see: what was read stays
// with the body, and a stage that needs it too reads nothing again.
func (e *Engine) measureWhole(it *item, whole *message.Whole) {
	root, problems, err := whole.Measure()
	it.measured(root.Part, problems, err)
}

func (it *item) measured(structure *message.Part, problems []string, err error) {
	if err != nil {
		if !errors.Is(err, relay.ErrAbandoned) {
			it.problems = append(it.problems, err.Error())
		}
		return
	}
	it.structure, it.problems = structure, problems
}

// route lets the stages that need the body judge, and decides for each sink
// whether it gets the message. It returns the data sinks that are to write.
func (e *Engine) route(it *item) []int {
	if !it.judged {
		if more, passed := e.judge(it); !passed {
			if more != 0 {
				it.dead("", fault.New(fault.Bug, "a stage needs %s, which the body doesn't tell", more).WithReason("unjudged"))
			}
			return nil
		}
	}
	e.annotate(it)
	return e.routed(it)
}

// routed decides for each sink whether it gets the message, and returns the
// data sinks that are to write.
func (e *Engine) routed(it *item) []int {
	e.decide(it)
	var routed []int
	for i := range it.slots {
		if it.slots[i].state == slotTodo && !e.outlets[i].plan.Prepared.Record && e.outlets[i].broken() == nil {
			routed = append(routed, i)
		}
	}
	return routed
}

// dead makes the item a dead letter for all sinks.
func (it *item) dead(stage string, err error) {
	it.final = &ledger.Fate{Target: ledger.Everywhere, Class: ledger.Dead, Letter: letterOf(it, stage, err)}
}

var errNoBody = errors.New("the source answered without a body")
