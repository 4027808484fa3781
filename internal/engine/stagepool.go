package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// stageSessions is how many sessions of one plugin stage are open at most:
// each takes one message at a time.
const stageSessions = 4

// stagePool holds the sessions of a stage that is a plugin, opened when they
// are needed.
type stagePool struct {
	e     *Engine
	stage *stages.Stage

	mu      sync.Mutex
	changed sync.Cond
	idle    []stage.Stage
	open    int
}

func newStagePool(e *Engine, s *stages.Stage) *stagePool {
	p := &stagePool{e: e, stage: s}
	p.changed.L = &p.mu
	return p
}

// stageSession is a session that one message has to itself.
type stageSession struct {
	stage.Stage
	pool     *stagePool
	isolated bool
	dead     bool
}

// get returns a session, waiting for one to be free. isolated asks for one in
// a process of its own.
func (p *stagePool) get(ctx context.Context, isolated bool) (*stageSession, error) {
	p.mu.Lock()
	for !isolated && len(p.idle) == 0 && p.open >= stageSessions {
		p.changed.Wait()
	}
	if n := len(p.idle); n > 0 && !isolated {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return &stageSession{Stage: s, pool: p}, nil
	}
	if !isolated {
		p.open++
	}
	p.mu.Unlock()
	s, err := p.e.plugins.OpenStage(ctx, p.stage, isolated)
	session := &stageSession{Stage: s, pool: p, isolated: isolated, dead: err != nil}
	if err != nil {
		session.free()
		return nil, err
	}
	return session, nil
}

// free gives the session back. What it gave out isn't valid any more.
func (s *stageSession) free() {
	if s.isolated || s.dead {
		if s.Stage != nil {
			_ = s.Close() // of a session that nothing hangs on
		}
		if s.isolated {
			return
		}
	}
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.dead {
		p.open--
	} else {
		p.idle = append(p.idle, s.Stage)
	}
	p.changed.Broadcast()
}

func (p *stagePool) close() error {
	var errs []error
	for _, s := range p.idle {
		if err := s.Close(); err != nil && !fault.Is(err, fault.Crashed) {
			errs = append(errs, stageError(p.stage, err))
		}
	}
	return errors.Join(errs...)
}

func stageError(s *stages.Stage, err error) error { return fmt.Errorf("stage %s: %w", s.Name, err) }

// apply gives an item to a plugin. When its process dies, a second one tries
// the item alone: dies that too, the item is to blame. Body of what it returns
// is nil unless the plugin put another in its place.
func (e *Engine) apply(it *item, st *stages.Stage, body func() *message.Body) (*message.Message, stage.Verdict, *stageSession, error) {
	pool := e.stages[st.Name]
	for isolated := false; ; isolated = true {
		session, err := pool.get(e.ctx, isolated)
		if fault.Is(err, fault.Crashed) && !isolated {
			continue // the shared process died a moment ago
		}
		if err != nil {
			return nil, 0, nil, err
		}
		m := &message.Message{Summary: it.sum, Assembled: it.assembled}
		if !st.Spec.Needs.Has(message.NeedHeaders) && body == nil {
			m.Header = nil
		}
		var given *message.Body
		if body != nil {
			given = body()
			m.Body = given
		}
		verdict, err := session.Apply(e.ctx, m)
		if err == nil {
			if m.Body == given {
				m.Body = nil
			}
			return m, verdict, session, nil
		}
		session.dead = fault.Is(err, fault.Crashed) || e.ctx.Err() != nil
		session.free()
		if !fault.Is(err, fault.Crashed) {
			return nil, 0, nil, err
		}
		if isolated {
			it.killed = true
			return nil, 0, nil, err
		}
		e.note(Event{Kind: StageDied, Stage: st.Name, Err: err})
	}
}
