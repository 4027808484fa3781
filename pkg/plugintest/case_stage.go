package plugintest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/stage"
)

func stageCases() []testCase {
	kinds := oneOf(wire.KindStage)
	return []testCase{
		{name: "prepares-the-same", kinds: kinds, promise: "Prepare says from the config alone what the stage reads and does, the same each time.", run: preparesTheSame},
		{name: "judges-the-same", kinds: kinds, promise: "The same message gets the same verdict and the same octets, whatever came before it.", run: judgesTheSame},
		{name: "changes-what-it-says", kinds: kinds, promise: "Octets change only where Prepare said so, and the id never.", run: changesWhatItSays},
		{name: "judges-odd-bodies", kinds: kinds, promise: "An empty body, NULs or rubbish is judged, or is that message's own error.", run: judgesOddBodies},
		{name: "cancels-apply", kinds: kinds, promise: "Apply ends within a second when its context is cancelled.", run: cancelsApply},
	}
}

type openedStage struct {
	stage.Stage
	prepared wire.Prepared
}

func openStage(a *attempt, c settings) *openedStage {
	p, err := a.prepare(a.ctx, c)
	a.must(err, "Prepare")
	s, err := a.stage(a.ctx, c, p)
	a.must(err, "Open")
	return &openedStage{s, p}
}

func (s *openedStage) close(a *attempt) { a.must(s.Close(), "Close") }

// judged is what Apply made of a message.
type judged struct {
	verdict stage.Verdict
	sum     string
}

// try judges a mail.
func (s *openedStage) try(ctx context.Context, m mail, body *message.Body) (judged, *message.Message, error) {
	msg := m.message(s.prepared.Needs, false, body)
	before := msg.Body
	defer before.Release()
	v, err := s.Apply(ctx, msg)
	j := judged{verdict: v}
	if err == nil && msg.Body != nil && msg.Body != before {
		h := sha256.New()
		_, err = msg.Body.WriteTo(h)
		j.sum = hex.EncodeToString(h.Sum(nil))
		msg.Body.Release()
	}
	return j, msg, err
}

func (s *openedStage) apply(a *attempt, m mail) judged {
	j, _, err := s.try(a.ctx, m, nil)
	a.must(err, "Apply %s", m.what)
	return j
}

func preparesTheSame(a *attempt) {
	c := a.settings()
	p, err := a.prepare(a.ctx, c)
	a.must(err, "Prepare")
	again, err := a.prepare(a.ctx, c)
	a.must(err, "Prepare")
	if p != again {
		a.fail("Prepare answered %+v and then %+v", p, again)
	}
	if (p.Changes || p.NeedsWhole) && !p.Needs.Has(message.NeedBody) {
		a.fail("it changes octets or reads them at random, and doesn't need the body: %+v", p)
	}
}

func judgesTheSame(a *attempt) {
	s := openStage(a, a.settings())
	mails := ordinary(12)
	first := make([]judged, len(mails))
	for i, m := range mails {
		first[i] = s.apply(a, m)
		if v := first[i].verdict; v < stage.Keep || v > stage.Undecided {
			a.fail("the verdict on %s is %d, which is none", m.what, v)
		}
	}
	for i := len(mails) - 1; i >= 0; i-- {
		if j := s.apply(a, mails[i]); j != first[i] {
			a.fail("%s got %+v, and in another order %+v", mails[i].what, first[i], j)
		}
	}
	s.close(a)
	s = openStage(a, a.settings())
	for i, m := range mails {
		if j := s.apply(a, m); j != first[i] {
			a.fail("%s got %+v, and in another session %+v", m.what, first[i], j)
		}
	}
	s.close(a)
}

func changesWhatItSays(a *attempt) {
	s := openStage(a, a.settings())
	for _, m := range append(ordinary(6), hostile()...) {
		j, msg, err := s.try(a.ctx, m, nil)
		if err != nil {
			a.class(err, fault.Message, "Apply "+m.what)
			continue
		}
		if j.sum != "" && !s.prepared.Changes {
			a.fail("it changed the octets of %s, and Prepare says that it never does", m.what)
		}
		if msg.ID != m.id {
			a.fail("it changed the id of %s to %v", m.what, msg.ID)
		}
	}
	s.close(a)
}

func judgesOddBodies(a *attempt) {
	s := openStage(a, a.settings())
	for _, m := range odd() {
		if _, _, err := s.try(a.ctx, m, nil); err != nil {
			a.class(err, fault.Message, "Apply "+m.what)
		}
	}
	s.apply(a, ordinary(1)[0])
	s.close(a)
}

func cancelsApply(a *attempt) {
	s := openStage(a, a.settings())
	if !s.prepared.Needs.Has(message.NeedBody) {
		a.leave("it gets no bodies")
	}
	m := ordinary(1)[0]
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	stuck, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		r := io.MultiReader(bytes.NewReader(m.octets[:40]))
		_, _, _ = s.try(ctx, m, message.NewBody(&stalled{ctx: ctx, r: r, stuck: stuck}, int64(len(m.octets)), nil)) // that it ends is all
	}()
	select {
	case <-stuck:
	case <-ended: // it didn't want the body of this one
	}
	cancel()
	a.soon("Apply", func() { <-ended })
}
