package engine

import (
	"sync"

	"github.com/mailhaul/pipeline/pkg/message"
)

// pullAhead is how many batches of ids a Fetch may have unanswered: enough to
// keep a connection busy, few enough to share the work among the lanes.
const pullAhead = 2

// pulled is what one Fetch has pulled and not yet answered. A source may pull
// from another goroutine than the one that answers.
type pulled struct {
	mu      sync.Mutex
	changed sync.Cond
	items   map[message.ID]*item
	batches []int // unanswered ids of each batch, oldest first
	of      map[message.ID]int
	first   int  // number of batches[0]
	pulling bool // between room and add
	closed  bool
}

func newPulled() *pulled {
	p := &pulled{items: map[message.ID]*item{}, of: map[message.ID]int{}}
	p.changed.L = &p.mu
	return p
}

// room waits until another batch may be pulled; false when the Fetch is over.
// After true comes add.
func (p *pulled) room() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.batches) >= pullAhead && !p.closed {
		p.changed.Wait()
	}
	p.pulling = !p.closed
	return p.pulling
}

// add notes what was pulled, which may be nothing.
func (p *pulled) add(items []*item) []message.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulling = false
	defer p.changed.Broadcast()
	if len(items) == 0 {
		return nil
	}
	ids := make([]message.ID, len(items))
	number := p.first + len(p.batches)
	for i, it := range items {
		ids[i] = it.sum.ID
		p.items[it.sum.ID] = it
		p.of[it.sum.ID] = number
	}
	p.batches = append(p.batches, len(items))
	return ids
}

// answered returns the item of an id and takes it out; nil when the id was
// not pulled or has its answer already.
func (p *pulled) answered(id message.ID) *item {
	p.mu.Lock()
	defer p.mu.Unlock()
	it, ok := p.items[id]
	if !ok {
		return nil
	}
	p.batches[p.of[id]-p.first]--
	delete(p.items, id)
	delete(p.of, id)
	for len(p.batches) > 0 && p.batches[0] == 0 {
		p.batches = p.batches[1:]
		p.first++
	}
	p.changed.Broadcast()
	return it
}

// unanswered returns what was pulled and never answered.
func (p *pulled) unanswered() []*item {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*item, 0, len(p.items))
	for _, it := range p.items {
		out = append(out, it)
	}
	return out
}

// close ends the pulling. A source that pulls from a goroutine of its own may
// be about to: what it still takes is noted before close returns, so that it
// isn't lost, and it gets no more.
func (p *pulled) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.changed.Broadcast()
	for p.pulling {
		p.changed.Wait()
	}
}
