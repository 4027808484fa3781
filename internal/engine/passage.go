package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/relay"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// passage is one body on its way through stages that change octets, or that
// are plugins. What came from the source is hashed and measured as it came
// (I4); the sinks get what the stages made of it. Memory is bounded: a small
// body is held, a large one streamed, and where a stage must see it whole it
// waits in the spool (I5).
type passage struct {
	w    *worker
	it   *item
	body *message.Body // as the stages left it so far
	held []*message.Body
	done []func() // to give sessions back

	base     *guarded // a large body that is streamed; nil when it came whole
	hash     hash.Hash
	octets   int64
	measured sync.WaitGroup
	pipe     *io.PipeWriter // to whoever measures

	seen    stages.Position // up to here the segments have changed what they change
	changes []change
	by      *stages.Stage // the stage that failed
}

// change is what a stage may have done to the octets.
type change struct {
	stage string
	made  func() bool
}

// entry is an item as it was before its first passage: fetched again, it goes
// through the stages again.
type entry struct {
	sum    message.Summary
	at     stages.Position
	judged bool
	noted  bool
	waits  bool
	folded stages.Position
}

// alter delivers a body by way of the stages.
func (w *worker) alter(ctx context.Context, it *item, body *message.Body) (err error) {
	if it.entry == nil {
		it.entry = &entry{it.sum, it.at, it.judged, it.noted, it.atBarrier, it.folded}
	} else {
		e := it.entry
		it.sum, it.at, it.judged, it.noted, it.atBarrier, it.folded = e.sum, e.at, e.judged, e.noted, e.waits, e.folded
	}
	p := &passage{w: w, it: it}
	defer p.close()
	if err := p.take(ctx, body); err != nil {
		return err
	}
	goOn, err := p.judge()
	var routed []int
	if err == nil && goOn {
		routed = w.e.routed(it)
	}
	if err == nil && len(routed) > 0 {
		err = p.write(routed)
	}
	if err == nil {
		err = p.end()
	}
	if err != nil && p.by != nil && (p.base == nil || p.base.err == nil) {
		w.e.stageFailed(it, p.by, err)
		it.aborted.Store(true) // what sinks answer doesn't count
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range p.changes {
		if c.made() && !slices.Contains(it.changed, c.stage) {
			it.changed = append(it.changed, c.stage)
		}
	}
	return nil
}

// take reads as much of the body as the stages must see before the first sink
// does.
func (p *passage) take(ctx context.Context, body *message.Body) error {
	w, it := p.w, p.it
	if !it.big {
		data, err := w.take(it, body)
		if err != nil {
			return err
		}
		p.body = message.BodyOf(data)
		return p.measure(ctx)
	}
	p.hash = sha256.New()
	p.base = &guarded{Reader: body, size: body.Size(), it: it}
	head, err := readHead(p.base)
	if err != nil {
		return err
	}
	setHeader(it, head)
	p.hash.Write(head)
	p.octets = int64(len(head))
	var see io.Writer = p
	src := io.MultiReader(bytes.NewReader(head), io.TeeReader(p.base, writerFunc(func(b []byte) (int, error) { return see.Write(b) })))
	if !w.e.whole(it) {
		if w.e.measuresLater(it) {
			r, pipe := io.Pipe()
			p.pipe = pipe
			p.measured.Go(func() {
				w.e.measure(it, io.MultiReader(bytes.NewReader(head), r))
				_, _ = io.Copy(io.Discard, r) // it may have ended early: nobody is to wait for it
			})
			see = io.MultiWriter(p, pipe)
		}
		p.body = message.NewBody(src, -1, w.e.opts.Spool)
		return nil
	}
	p.body = message.NewBody(src, body.Size(), w.e.opts.Spool)
	p.held = append(p.held, p.body)
	if _, err := p.body.Whole(ctx); err != nil {
		return err
	}
	it.octets, it.sha256 = p.octets, p.hash.Sum(nil)
	p.base = nil
	return p.measure(ctx)
}

// measure reads what a body that is there whole is made of, where it matters.
func (p *passage) measure(ctx context.Context) error {
	e, it := p.w.e, p.it
	tells := e.bodyTellsStructure(it)
	if !tells && !e.measuresLater(it) {
		return nil
	}
	whole, err := p.body.Whole(ctx)
	if err != nil {
		return err
	}
	e.measureWhole(it, whole)
	if tells {
		it.tellStructure()
	}
	return nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Write sees the octets as they came.
func (p *passage) Write(b []byte) (int, error) {
	p.octets += int64(len(b))
	return p.hash.Write(b)
}

// whole reports whether a stage must see the item's whole body before it can
// let an octet of it pass.
func (e *Engine) whole(it *item) bool {
	if e.bodyTellsStructure(it) {
		return true
	}
	for _, s := range e.plan.Chain.Stages() {
		if s.Kind == stages.Attachments || s.Kind == stages.Plugin && s.Needs().Has(message.NeedBody) {
			return true
		}
	}
	return false
}

// judge takes the item through what is left of the chain. It reports whether
// the sinks may get it.
func (p *passage) judge() (bool, error) {
	e, it := p.w.e, p.it
	for !it.judged {
		if it.atBarrier {
			if e.plan.Chain.Barrier(it.at).Kind != stages.Plugin {
				it.dead("", fault.New(fault.Bug, "stage %s was to see the message in the listing", e.plan.Chain.Barrier(it.at).Name).WithReason("unjudged"))
				return false, nil
			}
			passed, err := p.plugin()
			if !passed || err != nil {
				return false, err
			}
			continue
		}
		more, passed := e.judge(it)
		switch {
		case passed || it.atBarrier:
		case it.final != nil:
			return false, nil
		default:
			it.dead("", fault.New(fault.Bug, "a stage needs %s, which the body doesn't tell", more).WithReason("unjudged"))
			return false, nil
		}
	}
	if goOn, err := p.alterAll(); !goOn || err != nil {
		return false, err
	}
	e.annotate(it)
	return true, nil
}

// plugin has the plugin at which the item waits judge and change it.
func (p *passage) plugin() (passed bool, err error) {
	e, it := p.w.e, p.it
	st := e.plan.Chain.Barrier(it.at)
	if !st.Needs().Has(message.NeedBody) {
		return e.ask(it, st, nil, nil)
	}
	if goOn, err := p.alterAll(); !goOn || err != nil {
		return false, err
	}
	whole, err := p.body.Whole(e.ctx)
	if err != nil {
		return false, err
	}
	p.held = append(p.held, p.body)
	fresh := func() *message.Body {
		if b, ok := p.body.Bytes(); ok {
			return message.BodyOf(b)
		}
		return message.NewBody(whole.Reader(), whole.Size(), e.opts.Spool)
	}
	return e.ask(it, st, fresh, func(b *message.Body, session *stageSession) {
		if b != nil {
			p.held = append(p.held, b)
			p.body, p.by = b, st
			p.changes = append(p.changes, change{st.Name, func() bool { return true }})
		}
		p.done = append(p.done, session.free)
	})
}

// alterAll has the stages that the item passed since the last call change the
// octets.
func (p *passage) alterAll() (bool, error) {
	e, it := p.w.e, p.it
	var alters []*stages.Stage
	for ; p.seen <= it.at; p.seen++ {
		alters = append(alters, it.box.account.chain.Alters(p.seen, &it.sum, it.noted || p.seen < it.folded, e.unsure(it))...)
	}
	for _, st := range alters {
		p.by = st
		before := p.body
		b, made, err := st.Alter(p.w.e.ctx, before, p.w.e.opts.Spool)
		p.held = append(p.held, before)
		if err != nil {
			return false, err
		}
		if b != before { // else nothing was read of it
			p.body = b
			p.changes = append(p.changes, change{st.Name, made})
		}
	}
	return true, nil
}

// write hands the octets to the sinks: small ones from memory.
func (p *passage) write(routed []int) error {
	w, it := p.w, p.it
	var out io.Reader = p.body
	if p.by != nil || p.base != nil {
		// That they break off must be known before a sink can learn of it.
		out = &guarded{Reader: &drained{Reader: p.body, p: p}, size: p.body.Size(), it: it}
	}
	head, err := readHead(out)
	if err != nil {
		return err
	}
	it.header = headerOf(head)
	if data, ok := p.body.Bytes(); ok && len(p.changes) == 0 {
		for _, i := range routed {
			w.put(it, i, message.BodyOf(data))
		}
		return nil
	}
	if !it.big {
		rest, err := io.ReadAll(io.LimitReader(out, smallBody))
		if err != nil {
			return err
		}
		if len(rest) < smallBody {
			head = append(head, rest...)
			for _, i := range routed {
				w.put(it, i, message.BodyOf(head))
			}
			return nil
		}
		head = append(head, rest...)
	}
	r := relay.New(len(routed), &w.e.chunks, w.e.opts.Spool, w.e.opts.patience())
	defer r.Close()
	var wg sync.WaitGroup
	for n, i := range routed {
		rd := r.Readers()[n]
		wg.Go(func() {
			defer rd.Close()
			w.put(it, i, message.NewBody(rd, p.body.Size(), w.e.opts.Spool))
		})
	}
	err = r.Pump(io.MultiReader(bytes.NewReader(head), out), func([]byte) {})
	if err != nil {
		it.aborted.Store(true)
	}
	wg.Wait()
	return err
}

// drained is what a stage made of a body: its end is only that when the body
// itself came to its end.
type drained struct {
	io.Reader
	p *passage
}

// Read implements io.Reader.
func (d *drained) Read(b []byte) (int, error) {
	n, err := d.Reader.Read(b)
	if err == io.EOF {
		if bad := d.p.drain(); bad != nil {
			return n, bad
		}
	}
	return n, err
}

// drain reads what no stage has read of a body that is streamed.
func (p *passage) drain() error {
	if p.base == nil {
		return nil
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := p.base.Read(buf)
		if n > 0 {
			_, _ = p.Write(buf[:n])
			if p.pipe != nil {
				_, _ = p.pipe.Write(buf[:n])
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end finishes what is known of the octets as they came.
func (p *passage) end() error {
	if p.base == nil {
		return nil
	}
	if p.it.final == nil {
		if err := p.drain(); err != nil {
			return err
		}
		p.it.octets, p.it.sha256 = p.octets, p.hash.Sum(nil)
	}
	if p.pipe != nil {
		_ = p.pipe.Close()
		p.measured.Wait()
	}
	return nil
}

func (p *passage) close() {
	if p.pipe != nil {
		_ = p.pipe.CloseWithError(relay.ErrAbandoned)
		p.measured.Wait()
	}
	for _, f := range p.done {
		f()
	}
	for _, b := range p.held {
		b.Release()
	}
}

// headerOf returns the header in the octets, copied.
func headerOf(head []byte) *message.Header {
	end := headerEnd(head)
	if end < 0 {
		end = len(head)
	}
	return message.NewHeader(bytes.Clone(head[:end]))
}

// measuresLater reports whether a record sink may want the item's structure.
// Who gets it is known only when the stages have judged.
func (e *Engine) measuresLater(it *item) bool {
	if it.structure != nil {
		return false
	}
	for i := range it.slots {
		p := &e.outlets[i].plan.Prepared
		if p.Record && p.Needs.Has(message.NeedStructure) && it.slots[i].state != slotKept {
			return true
		}
	}
	return false
}

// annotate makes what the stages noted part of what is known of the item.
func (e *Engine) annotate(it *item) {
	if it.noted {
		return
	}
	run := it.box.account.chain
	run.NoteAll(&it.sum, e.unsure(it))
	it.noted = true
}

// unsure returns what counts the stages that couldn't tell about the item.
func (e *Engine) unsure(it *item) func(*stages.Stage) {
	return func(s *stages.Stage) {
		if it.box.account.claiming {
			return
		}
		it.box.mu.Lock()
		defer it.box.mu.Unlock()
		it.box.undecided[s.Name]++
	}
}

// ask has a plugin judge an item that waits for it. With a body, keep gets the
// one that the plugin put in its place, or nil, and the session whose it is.
func (e *Engine) ask(it *item, st *stages.Stage, body func() *message.Body, keep func(*message.Body, *stageSession)) (passed bool, err error) {
	run := it.box.account.chain
	pass := func() (bool, error) {
		it.at, it.atBarrier, it.folded = it.at+1, false, it.at+1
		return true, nil
	}
	run.Note(it.at, &it.sum, e.unsure(it))
	if !run.Concerns(it.at, &it.sum, e.unsure(it)) {
		return pass()
	}
	m, verdict, session, err := e.apply(it, st, body)
	if err != nil {
		e.stageFailed(it, st, err)
		return false, nil
	}
	it.sum.Vars, it.sum.LandsIn = m.Vars, m.LandsIn
	if keep != nil {
		keep(m.Body, session)
	} else {
		session.free()
	}
	switch verdict {
	case stage.Keep:
		return pass()
	case stage.Drop:
		_, _ = e.outcome(it, run.DroppedAt(it.at, st, &it.sum))
		return false, nil
	case stage.Undecided:
		switch st.Unknown {
		case stages.UnknownDrop:
			_, _ = e.outcome(it, run.DroppedAt(it.at, st, &it.sum))
			return false, nil
		case stages.UnknownDeadLetter:
			it.dead(st.Name, fault.New(fault.Message, "stage %s can't tell about the message", st.Name).WithReason("undecided"))
			return false, nil
		}
		e.unsure(it)(st)
		return pass()
	}
	e.stageFailed(it, st, fault.New(fault.Bug, "plugin %s gave the verdict %d, which is none", st.Plugin, verdict))
	return false, nil
}

// stageFailed does with an item at which a stage failed what the file says. A
// fault that isn't the message's stops the run: it would be every message's.
func (e *Engine) stageFailed(it *item, st *stages.Stage, err error) {
	switch {
	case e.ctx.Err() != nil:
		return
	case fault.Is(err, fault.Full), fault.Is(err, fault.Config), fault.Is(err, fault.Auth),
		fault.Is(err, fault.Unavailable), fault.Is(err, fault.Throttled),
		fault.Is(err, fault.Crashed) && !it.killed, st.OnError == stages.OnErrorStop:
		e.stop(stageError(st, err))
		return
	}
	if st.OnError == stages.OnErrorDrop {
		it.final = &ledger.Fate{Target: ledger.Everywhere, Class: ledger.Dropped, Refusal: &ledger.Refusal{
			Stage: st.Name, Rules: e.rules[st.Name], Values: []byte("{}"),
		}}
		return
	}
	reason := "stage_failed"
	if f := fault.As(err); f != nil && f.Reason != "" {
		reason = f.Reason
	}
	if it.killed {
		reason = "kills_the_stage"
	}
	it.dead(st.Name, fault.New(fault.Message, "stage %s: %w", st.Name, err).WithReason(reason))
}
