package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"strconv"
	"sync"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// store is what a synthetic sink writes to. Only what was flushed survives a
// death; opened with a checkpoint, it rolls back to it.
type store struct {
	mu      sync.Mutex
	durable map[string]string // key -> octets or record, as of the newest flush
	at      map[int]map[string]string
	flushes int
	opened  int
	writes  int
	wrote   signal // at each of them
	atSeal  int    // how many there were at the newest Seal
	summed  int    // bodies of which the host told the sum
	record  bool
	seals   bool     // it can seal an epoch
	wrong   []string // what the host did against the contract

	forgetful bool // it keeps no octets
	doubled   int  // records of one id that don't say that they replace another

	refuse  map[uint32]bool // Write says Message
	late    map[uint32]bool // Flush says that, as a bucket does
	killer  map[uint32]bool // the process dies at Write
	dieAt   int             // the process dies once at that Write; 0: never
	dieIn   string          // "seal": dies once in the next Seal; "sealed": right after it; so "flush", "flushed", "committed"
	fail    error           // what Flush says, once
	placed  int             // the flush of which Open or Committed told
	full    int             // Write says Full from then on; 0: never
	slow    func()
	onFlush func(ctx context.Context) // called at the beginning of each, with nothing locked
	openErr error
}

// writtenAtSeal returns how many Writes there were at the newest Seal.
func (s *store) writtenAtSeal() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.atSeal
}

// written returns how many Writes there were.
func (s *store) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// writtenMoreThan waits until there were more than n, and returns how many.
func (s *store) writtenMoreThan(ctx context.Context, n int) int {
	for {
		next := s.wrote.next()
		if now := s.written(); now > n || ctx.Err() != nil {
			return now
		}
		select {
		case <-next:
		case <-ctx.Done():
		}
	}
}

// signal lets goroutines wait for the next time that something happens.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// next returns a channel that the next tell closes.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

func newStore() *store {
	return &store{durable: map[string]string{}, at: map[int]map[string]string{0: {}}, refuse: map[uint32]bool{}, killer: map[uint32]bool{}}
}

func (s *store) contents() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.durable)
}

// storeSession is one process of a sink.
type storeSession struct {
	s     *store
	mu    sync.Mutex
	held  map[string]string // durable and not yet flushed
	dead  bool
	lanes []*storeLane
	late  message.Refusals // of the next Flush

	sealed     map[string]string // what the next Flush makes durable; nil: all that is held
	sealedLate message.Refusals
	open       int  // Puts without an answer
	alone      bool // a Flush runs that no Put may run beside
	untold     bool // a Flush was, and Committed wasn't
	failed     bool // a Flush failed
}

// against notes what the host does that it must not.
func (ss *storeSession) against(wrong bool, what string) {
	if wrong {
		ss.s.mu.Lock()
		defer ss.s.mu.Unlock()
		ss.s.wrong = append(ss.s.wrong, what)
	}
}

// Seals reports whether Seal may be called.
func (ss *storeSession) Seals() bool { return ss.s.seals }

func (ss *storeSession) Seal(context.Context) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.dies("seal")
	if ss.dead {
		return errDied
	}
	ss.against(!ss.s.seals, "Seal of a sink that doesn't")
	ss.against(ss.s.record, "Seal of a record sink")
	ss.against(ss.open > 0, "Seal beside a Write")
	ss.against(ss.sealed != nil, "a second Seal without a Flush")
	ss.against(ss.untold, "Seal before Committed")
	ss.against(ss.failed, "Seal after a Flush that failed")
	ss.sealed, ss.sealedLate, ss.late = maps.Clone(ss.held), ss.late, nil
	ss.s.mu.Lock()
	ss.s.atSeal = ss.s.writes
	ss.s.mu.Unlock()
	ss.dies("sealed") // who calls next learns of it
	return nil
}

// dies ends the process, when it is to die there.
func (ss *storeSession) dies(where string) {
	ss.s.mu.Lock()
	defer ss.s.mu.Unlock()
	if ss.s.dieIn == where {
		ss.s.dieIn = ""
		ss.dead = true
	}
}

func (s *store) open(st sink.State) (engine.SinkSession, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if s.openErr != nil {
		return nil, s.openErr
	}
	n := 0
	if st.Checkpoint != nil {
		n, _ = strconv.Atoi(string(st.Checkpoint))
	}
	s.durable, s.placed = maps.Clone(s.at[n]), n
	return &storeSession{s: s, held: maps.Clone(s.at[n])}, nil
}

func (ss *storeSession) write(m *message.Message) (sink.Receipt, error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.dead {
		return sink.Receipt{}, errDied
	}
	ss.s.mu.Lock()
	defer ss.s.mu.Unlock()
	ss.s.writes++
	ss.s.wrote.tell()
	if ss.s.killer[m.ID.UID] || ss.s.writes == ss.s.dieAt {
		ss.dead = true
		return sink.Receipt{}, errDied
	}
	if ss.s.slow != nil {
		ss.s.slow()
	}
	key := m.ID.Key()
	if ss.s.record {
		if _, there := ss.held[key]; there && !m.Record.Replaces {
			ss.s.doubled++
		}
		ss.held[key] = fmt.Sprintf("%s %s %d %v", m.Record.SHA256, m.Header.Subject(), m.Record.Octets, m.Record.Files)
		if len(m.Record.Changed)+len(m.Vars)+len(m.LandsIn) > 0 {
			ss.held[key] += fmt.Sprintf(" changed by %v, vars %v, lands in %q", m.Record.Changed, m.Vars, m.LandsIn)
		}
		return sink.Receipt{}, nil
	}
	octets, err := io.ReadAll(m.Body)
	if err != nil {
		return sink.Receipt{}, err
	}
	// What the host says of the octets must be true of those that came, also
	// where stages have changed them.
	if sum := sha256.Sum256(octets); m.Body.Summed() {
		ss.s.summed++
		if !bytes.Equal(m.Body.SHA256(), sum[:]) {
			return sink.Receipt{}, fault.New(fault.Bug, "the body of %d octets came with the sum %x", len(octets), m.Body.SHA256())
		}
	}
	switch {
	case ss.s.refuse[m.ID.UID]:
		return sink.Receipt{}, fault.New(fault.Message, "not to my taste").WithReason("taste")
	case ss.s.full > 0 && ss.s.writes >= ss.s.full:
		return sink.Receipt{}, fault.New(fault.Full, "no space left on device")
	}
	if ss.s.late[m.ID.UID] {
		ss.late = append(ss.late, message.Refusal{ID: m.ID, Err: fault.New(fault.Message, "not here").WithReason("taste")})
	} else if !ss.s.forgetful {
		ss.held[key] = string(octets)
	}
	return sink.Receipt{Path: m.ID.Hash(), Octets: int64(len(octets))}, nil
}

func (ss *storeSession) Flush(ctx context.Context) (sink.Checkpoint, error) {
	ss.mu.Lock()
	ss.alone = ss.sealed == nil
	ss.against(ss.alone && ss.open > 0, "Flush beside a Write, without a Seal")
	ss.against(ss.untold, "Flush before Committed")
	ss.against(ss.failed, "Flush after one that failed")
	ss.mu.Unlock()
	if f := ss.s.onFlush; f != nil {
		f(ctx)
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	defer func() { ss.alone = false }()
	ss.dies("flush")
	ss.s.mu.Lock()
	defer ss.s.mu.Unlock()
	if ss.dead {
		return nil, errDied
	}
	if err := ss.s.fail; err != nil {
		ss.s.fail, ss.failed = nil, true
		return nil, err
	}
	covered, late := ss.held, ss.late
	if ss.sealed != nil {
		covered, late = ss.sealed, ss.sealedLate
	} else {
		ss.late = nil
	}
	ss.sealed, ss.sealedLate = nil, nil
	ss.s.flushes++
	ss.s.durable = maps.Clone(covered)
	ss.s.at[ss.s.flushes] = maps.Clone(covered)
	ss.untold = true
	if ss.s.dieIn == "flushed" {
		ss.s.dieIn = ""
		ss.dead = true
	}
	cp := sink.Checkpoint(strconv.Itoa(ss.s.flushes))
	if len(late) > 0 {
		return cp, late
	}
	return cp, nil
}

func (ss *storeSession) Committed(_ context.Context, c sink.Checkpoint) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.s.mu.Lock()
	defer ss.s.mu.Unlock()
	if ss.s.dieIn == "committed" {
		ss.s.dieIn = ""
		ss.dead = true
	}
	if ss.dead {
		return errDied
	}
	ss.untold = false
	ss.s.placed, _ = strconv.Atoi(string(c))
	return nil
}

// Close ends what lanes are left, as a process that has died does.
func (ss *storeSession) Close() error {
	ss.mu.Lock()
	lanes := ss.lanes
	ss.mu.Unlock()
	for _, l := range lanes {
		l.end()
	}
	return nil
}

// Lane answers from a goroutine of its own, as the wire does.
func (ss *storeSession) Lane(context.Context) (engine.Lane, error) {
	l := &storeLane{ss: ss, answers: make(chan func(), 64)}
	l.wg.Go(func() {
		for f := range l.answers {
			f()
		}
	})
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.lanes = append(ss.lanes, l)
	return l, nil
}

type storeLane struct {
	ss      *storeSession
	answers chan func()
	wg      sync.WaitGroup

	mu   sync.Mutex
	over bool
}

func (l *storeLane) Put(ctx context.Context, m *message.Message, done func(sink.Receipt, error)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // as the wire's lanes do
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return errDied
	}
	l.ss.mu.Lock()
	l.ss.open++
	l.ss.against(l.ss.alone, "a Write beside a Flush, without a Seal")
	l.ss.mu.Unlock()
	r, err := l.ss.write(m)
	l.answers <- func() {
		l.ss.mu.Lock()
		l.ss.open--
		l.ss.mu.Unlock()
		done(r, err)
	}
	return nil
}

// end lets the lane's goroutine answer what is under way, and end.
func (l *storeLane) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.over = true
		close(l.answers)
	}
}

func (l *storeLane) Close() error {
	l.end()
	l.wg.Wait()
	if l.ss.dead {
		return errDied
	}
	return nil
}
