package engine

import (
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/faultpoint"
)

// Limits of an epoch (DESIGN §6, Commit).
const (
	epochAge    = time.Second
	epochOctets = 64 << 20
	epochItems  = 4096
	epochMemory = 16 << 20
)

// gate cuts the work into epochs. An item enters before its first octet is
// written anywhere and leaves when every sink has answered; an epoch closes
// when nothing is inside, since a Seal, or a Flush without one, must not meet a
// Write.
type gate struct {
	mu      sync.Mutex
	changed sync.Cond
	closing bool // nobody may enter
	given   bool // given up: nothing can be committed any more, and nobody waits
	wanted  bool // the epoch should close as soon as it can
	inside  int
	big     int // of those inside, how many hold up the closing
	most    int // items of an epoch
	items   []*item
	octets  int64
	memory  int64
	since   time.Time     // when the first of them left
	wake    chan struct{} // the committer has something to do
	timer   *time.Timer
}

func newGate() *gate {
	g := &gate{most: faultpoint.EpochItems(epochItems), wake: make(chan struct{}, 1)}
	g.changed.L = &g.mu
	return g
}

// enter waits until the epoch is open.
func (g *gate) enter(it *item) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.given && (g.closing || g.wanted && (g.big == 0 || g.overdue())) {
		g.changed.Wait()
	}
	g.inside++
	if it.big {
		g.big++
	}
}

// overdue says that the epoch may not grow further, though a big message still
// holds it open: what a crash costs is bounded.
func (g *gate) overdue() bool {
	return len(g.items) >= 4*g.most || g.octets >= 4*epochOctets
}

// leave adds the item to the epoch.
func (g *gate) leave(it *item) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if it.big {
		g.big--
	}
	if len(g.items) == 0 {
		g.since = time.Now()
		g.timer = time.AfterFunc(epochAge, g.kick)
	}
	g.items = append(g.items, it)
	g.octets += max(it.octets, 0)
	g.memory += it.weight()
	if len(g.items) >= g.most || g.octets >= epochOctets || g.memory >= epochMemory {
		g.want()
	}
	g.changed.Broadcast()
}

// want ends the epoch: it is full, and nobody enters until it is committed.
func (g *gate) want() {
	g.wanted = true
	g.kick()
}

// kick asks for the epoch to be committed soon. As long as the one before it is
// still being made durable, this one goes on.
func (g *gate) kick() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// close waits until nothing is inside and returns the epoch's items, and when
// the first of them came. Nobody enters until open.
func (g *gate) close() ([]*item, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted = true
	for g.inside > 0 && !g.given {
		g.changed.Wait()
	}
	g.closing = true
	if g.timer != nil {
		g.timer.Stop()
	}
	items := g.items
	g.items, g.octets, g.memory = nil, 0, 0
	return items, g.since
}

// abandon lets everybody through: what enters from now on stays pending.
func (g *gate) abandon() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.given = true
	g.changed.Broadcast()
}

// open lets the next epoch begin.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closing, g.wanted = false, false
	g.changed.Broadcast()
}
