// Package livepage shows a run while it goes on, as a page in a browser: one
// embedded document, kept up to date by server-sent events.
//
// A Board keeps what is to be seen; a Server shows it. Neither may slow the
// run: events only set fields, the sums of mailboxes are read a few times a
// second and for a bounded time, nothing at all is read while nobody looks, and
// nothing waits for a browser.
package livepage

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/progress"
	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// every is how often the board looks at the run while somebody looks at it;
// budget is how long it may read sums each time, so that this costs two
// hundredths of a processor at most, however many mailboxes there are.
const (
	every  = 500 * time.Millisecond
	budget = 10 * time.Millisecond
)

// Run says which run is shown.
type Run struct {
	Pipeline string
	Number   int64 // in the ledger
	File     string
	Version  string // of the command
	Began    time.Time
	Sources  []string         // names, in the order of the plan
	Left     []engine.Account // known to fail before the run began: rows of a table
	Stats    *engine.Stats
	Timeline func() report.Timeline // what the run did so far; any goroutine may call it
}

// Board keeps what is to be seen of one run. All methods may be called by any
// goroutine. Close must be called.
type Board struct {
	run  Run
	id   string // of this board: a page that knew another one starts anew
	pace *progress.Pace
	done chan struct{}
	wg   sync.WaitGroup

	looking sync.Mutex // held by who looks at the run; before mu

	mu        sync.Mutex // never held while the engine is asked: it calls Event with locks held
	version   int64      // counts what changed
	ticked    chan struct{}
	watchers  int
	accounts  []*account // in the order of the plan
	at        map[string]*account
	due       []*account // to be looked at, the longest waiting first
	letters   letters
	news      news
	where     progress.Progress
	messages  float64 // a second
	timeline  report.Timeline
	drawn     int64 // version at which the timeline grew
	stopping  bool
	failed    int64 // version at which something failed, or recovered
	ended     *end
	endedWith int64 // version
}

// end is how the run ended.
type end struct {
	at          time.Time
	exit        int
	text, error string
	hint        string
}

// NewBoard returns the board of a run that is about to begin.
func NewBoard(run Run) *Board {
	b := &Board{
		run: run, id: rand.Text(), pace: progress.NewPace(run.Stats), done: make(chan struct{}),
		ticked: make(chan struct{}), at: map[string]*account{}, letters: letters{}, version: 1,
	}
	for _, name := range run.Sources {
		b.add(name)
	}
	for i := range run.Left {
		a := b.add(run.Left[i].Source)
		a.left = true
		a.result(report.OfAccount(&run.Left[i]), fault.Of(run.Left[i].Err).String())
	}
	b.wg.Go(b.loop)
	return b
}

func (b *Board) add(name string) *account {
	a := &account{index: len(b.accounts), name: name, phase: waiting, sum: report.NewSum(), version: 1}
	b.accounts = append(b.accounts, a)
	if b.at[name] == nil {
		b.at[name] = a
	}
	return a
}

// Close ends the board's own work. Pages may still read it.
func (b *Board) Close() {
	close(b.done)
	b.wg.Wait()
}

func (b *Board) loop() {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.tick()
		case <-b.done:
			return
		}
	}
}

// tick looks at the run and tells those who watch the board.
func (b *Board) tick() {
	b.looking.Lock()
	defer b.looking.Unlock()
	where, messages := b.pace.Read(time.Now()) // always: a rate needs a past
	b.mu.Lock()
	over, watched := b.ended != nil, b.watchers > 0
	if !over {
		b.where, b.messages = where, messages
	}
	b.mu.Unlock()
	if over || !watched {
		return
	}
	timeline := b.run.Timeline()
	b.look()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(timeline.Octets) != len(b.timeline.Octets) || timeline.Seconds != b.timeline.Seconds {
		b.timeline, b.drawn = timeline, b.change()
	}
	b.tell()
}

// look reads the sums of accounts at work, and of those that changed since they
// were read last, as many as its budget allows; the rest is for the next time.
// b.looking is held.
func (b *Board) look() {
	b.mu.Lock()
	for _, a := range b.accounts {
		if a.atWork() {
			b.expect(a)
		}
	}
	due := b.due
	b.due = nil
	b.mu.Unlock()
	began := time.Now()
	for i, a := range due {
		if i > 0 && time.Since(began) > budget {
			b.mu.Lock()
			b.due = append(due[i:], b.due...)
			b.mu.Unlock()
			return
		}
		b.mu.Lock()
		a.due = false // before it is read: what changes meanwhile is for the next time
		b.mu.Unlock()
		boxes, excluded := b.run.Stats.Mailboxes(a.name)
		seen := report.OfAccount(&engine.Account{Source: a.name, Began: true, Mailboxes: boxes, Excluded: excluded})
		b.mu.Lock()
		if b.ended == nil && a.see(&seen) {
			a.version = b.change()
			if a.problems > 0 || a.hadProblems {
				a.hadProblems, b.failed = a.problems > 0, b.version
			}
		}
		b.mu.Unlock()
	}
}

// expect has an account looked at. b.mu is held.
func (b *Board) expect(a *account) {
	if !a.due {
		a.due = true
		b.due = append(b.due, a)
	}
}

// change counts a change. b.mu is held.
func (b *Board) change() int64 {
	b.version++
	return b.version
}

// tell wakes those who watch. b.mu is held.
func (b *Board) tell() {
	close(b.ticked)
	b.ticked = make(chan struct{})
}

// Event takes note of what happened. It is for engine.Options.Events.
func (b *Board) Event(e engine.Event) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended != nil {
		return
	}
	if a := b.at[e.Source]; a != nil {
		if before := a.failing(); a.event(e, now) {
			a.version = b.change()
			b.expect(a)
			if before || a.failing() {
				b.failed = b.version
			}
		}
	}
	switch e.Kind {
	case engine.DeadLetter:
		b.letters.add(e)
		b.failed = b.change()
	case engine.Stopping:
		b.stopping = true
		b.change()
	}
	if text, bad := sentence(e); text != "" {
		b.news.add(happening{At: now, Text: text, Bad: bad, version: b.change()})
	}
}

// End shows how the run ended: from now on the page has the report's numbers.
func (b *Board) End(r *engine.Result, exit int) {
	accounts := make([]report.Account, len(r.Accounts))
	reasons := make([]string, len(r.Accounts))
	for i := range r.Accounts {
		accounts[i] = report.OfAccount(&r.Accounts[i])
		if err := r.Accounts[i].Err; err != nil {
			reasons[i] = fault.Of(err).String()
		}
	}
	timeline := b.run.Timeline()
	b.looking.Lock()
	defer b.looking.Unlock()
	where, messages := b.pace.Read(time.Now())
	where.ETA = ""
	b.mu.Lock()
	defer b.mu.Unlock()
	b.where, b.messages, b.timeline = where, messages, timeline
	b.drawn, b.failed, b.due = b.change(), b.version, nil
	for i := range accounts {
		// Two rows of a table may claim one name: the report has both, in the
		// order that the board has.
		if i < len(b.accounts) && b.accounts[i].name == accounts[i].Source {
			b.accounts[i].result(accounts[i], reasons[i])
			b.accounts[i].version = b.version
		}
	}
	b.ended = &end{at: time.Now(), exit: exit, text: report.Outcome(exit)}
	if r.Err != nil {
		b.ended.error, b.ended.hint = r.Err.Error(), hint(r.Err)
	}
	b.endedWith = b.version
	b.tell()
}

func hint(err error) string {
	if f := fault.As(err); f != nil {
		return f.Hint
	}
	return ""
}

// next is closed when there may be something new.
func (b *Board) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ticked
}

// watch says that somebody looks at the board until the function is called. The
// first one sees it as it is now, not as it was when the last one left.
func (b *Board) watch() func() {
	b.mu.Lock()
	b.watchers++
	first := b.watchers == 1
	b.mu.Unlock()
	if first {
		b.tick()
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.watchers--
	}
}
