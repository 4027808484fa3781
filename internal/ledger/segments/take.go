package segments

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
)

const (
	// patience is how long NATS may take to answer. A cluster that lost a node
	// needs some seconds to have a leader again.
	patience = time.Minute
	// perTry is how long one call waits.
	perTry = 10 * time.Second
	// The pauses between two tries: the first, the longest.
	firstPause   = 20 * time.Millisecond
	longestPause = 2 * time.Second
)

// take writes the first manifest of this owner.
func (l *Ledger) take() error {
	for t := l.tries(); ; {
		old, revision, err := l.read()
		if err == nil {
			err = l.fenced(old)
		}
		if err != nil && fault.Is(err, fault.Unavailable) && !errors.Is(err, ErrFenced) && t.again() {
			continue
		}
		if err != nil {
			return err
		}
		m := &Manifest{Version: version, Schema: ledger.Schema, Task: l.o.Task, State: Taken}
		if old != nil {
			m = old
			if m.State != Taken || m.Run != l.o.Run {
				m.Tries = 0
			}
			m.State, m.Outcome = Taken, nil
			if m.Fence == l.o.Fence {
				l.objects = m.Commits // this fence made no more than that
			}
		}
		if m.Fence != l.o.Fence {
			m.Tries++
		}
		m.Fence, m.Owner, m.Run = l.o.Fence, l.owner, l.o.Run
		m.Commits++
		l.revision = revision
		mine, err := l.replace(m, &t)
		if err != nil {
			return err
		}
		if mine {
			l.manifest, l.head = m, m.Head.Clone()
			return nil
		}
		if !t.again() { // another owner was quicker: which of the two goes on is seen above
			return l.silent(errors.New("its manifest changes all the time"))
		}
	}
}

// fenced is an error where the manifest is a later owner's.
func (l *Ledger) fenced(m *Manifest) error {
	if m == nil || m.Fence < l.o.Fence || m.Fence == l.o.Fence && (l.manifest == nil || m.Owner == l.owner) {
		return nil
	}
	return fault.New(fault.Unavailable, "task %s: %w: its fence is %d, this one's %d", l.o.Task, ErrFenced, m.Fence, l.o.Fence)
}

// read reads the manifest and its revision; nil and 0 where there is none.
// What a replica answers may be old.
func (l *Ledger) read() (*Manifest, uint64, error) {
	ctx, cancel := context.WithTimeout(l.ctx, perTry)
	defer cancel()
	entry, err := l.o.Manifests.Get(ctx, Key(l.o.Task))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, l.silent(err)
	}
	m, err := Decode(entry.Value())
	return m, entry.Revision(), err
}

// silent is the error where NATS doesn't answer.
func (l *Ledger) silent(err error) error {
	if l.ctx.Err() != nil {
		return l.ended()
	}
	return fault.New(fault.Unavailable, "task %s: keep its manifest in NATS: %w", l.o.Task, err).
		WithHint("see whether the NATS servers run and have a leader; the task goes on where its last commit left it")
}

// replace puts a manifest in the place of the one whose revision is known. It
// returns when the new one is there, true, or surely isn't and never will be:
// an error, or false where the old one isn't the last any more and no later
// owner's is there.
//
// A call without an answer may have been done. So it is made again, and when
// the old manifest has been replaced, looked whether this one did it.
func (l *Ledger) replace(m *Manifest, t *tries) (bool, error) {
	value, err := m.encode()
	if err != nil {
		return false, err
	}
	for {
		var revision uint64
		ctx, cancel := context.WithTimeout(l.ctx, perTry)
		if l.revision == 0 {
			revision, err = l.o.Manifests.Create(ctx, Key(m.Task), value)
		} else {
			revision, err = l.o.Manifests.Update(ctx, Key(m.Task), value, l.revision)
		}
		cancel()
		if err == nil {
			l.revision = revision
			faultpoint.Hit("segments.committed")
			return true, nil
		}
		if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum) {
			return false, fault.New(fault.Config, "task %s: its manifest has %d octets, more than NATS takes: %w", m.Task, len(value), err).
				WithHint("raise max_payload in the configuration of the NATS servers, or make tasks smaller with range")
		}
		if !conflict(err) {
			if !t.again() {
				return false, l.silent(err)
			}
			continue
		}
		// Whose is the one that is there?
		there, revision, err := l.read()
		switch {
		case err != nil && !fault.Is(err, fault.Unavailable):
			return false, err
		case err == nil && there != nil && there.Owner == m.Owner && there.Commits == m.Commits:
			l.revision = revision
			return true, nil
		case err == nil && l.fenced(there) != nil:
			return false, l.fenced(there)
		case err == nil && revision > l.revision && there.Owner != m.Owner:
			return false, nil
		}
		if !t.again() { // a replica that lags behind, or nobody answers
			return false, l.silent(errors.Join(errors.New("it can't be told whether it was written"), err))
		}
	}
}

// conflict reports whether the condition of a write wasn't met.
func conflict(err error) bool {
	if errors.Is(err, jetstream.ErrKeyExists) {
		return true
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// tries are the tries of one call.
type tries struct {
	l     *Ledger
	begun time.Time
	n     int
}

func (l *Ledger) tries() tries { return tries{l: l, begun: time.Now()} }

// again waits for the next try; false when there is none.
func (t *tries) again() bool {
	pause := min(firstPause<<min(t.n, 10), longestPause)
	pause = pause/2 + rand.N(pause/2)
	t.n++
	if time.Since(t.begun)+pause > patience {
		return false
	}
	select {
	case <-time.After(pause):
		return true
	case <-t.l.ctx.Done():
		return false
	}
}
