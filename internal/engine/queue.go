package engine

import (
	"context"
	"slices"
	"sync"
)

// queueMost is how many items may wait for their body, for each account, before
// the listing does: a page is then pushed whole, so nearly three times as many
// can (I5).
const queueMost = 2048

// queue holds the items of one account that wait to be fetched, by mailbox.
// Listers push, fetchers take; several fetchers may share a mailbox, so that
// one big mailbox and many small ones both keep all lanes busy.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	groups  []*group
	of      map[*box]*group // the same, by their mailbox: thousands may wait
	size    int
	held    bool // the listing was held up: it is faster than the fetches
	ended   bool // no more will be pushed
	dropped bool // what waits is given up
}

type group struct {
	box      *box
	items    []*item
	fetchers int
}

func newQueue() *queue {
	q := &queue{of: map[*box]*group{}}
	q.changed.L = &q.mu
	return q
}

// push adds items of one mailbox, waiting while too many wait already.
func (q *queue) push(b *box, items []*item) {
	if len(items) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.size >= queueMost && !q.dropped {
		q.held = true
		q.changed.Wait()
	}
	if q.dropped {
		return
	}
	q.size += len(items)
	q.changed.Broadcast()
	if g := q.of[b]; g != nil {
		g.items = append(g.items, items...)
		return
	}
	g := &group{box: b, items: items}
	q.groups, q.of[b] = append(q.groups, g), g
}

// next waits for a mailbox with items and counts the caller among its
// fetchers until leave. It returns nil when nothing is left and nothing more
// will come.
func (q *queue) next(ctx context.Context) *group {
	stop := context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.changed.Broadcast()
	})
	defer stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if ctx.Err() != nil || q.dropped {
			return nil
		}
		var best *group
		for _, g := range q.groups {
			if len(g.items) > 0 && (best == nil || g.fetchers < best.fetchers) {
				if best = g; g.fetchers == 0 {
					break // there is no better one
				}
			}
		}
		if best != nil {
			best.fetchers++
			return best
		}
		if q.ended {
			return nil
		}
		q.changed.Wait()
	}
}

// take removes up to n items of the group, and no more than one lane's share
// of what waits where that is more than a few: the last of a mailbox is spread
// over all.
func (q *queue) take(g *group, n, lanes int) []*item {
	q.mu.Lock()
	defer q.mu.Unlock()
	share := (len(g.items) + lanes - 1) / max(lanes, 1)
	n = min(n, max(share, batchShared), len(g.items))
	items := slices.Clone(g.items[:n])
	clear(g.items[:n]) // the rest of a page would else keep what was fetched of it (I5)
	g.items = g.items[n:]
	q.size -= n
	q.changed.Broadcast()
	return items
}

// short reports whether so little waits that it is time to list on, where
// listing is what fills the queue quickly.
func (q *queue) short() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held && q.size < queueMost/2
}

// leave ends what next began.
func (q *queue) leave(g *group) {
	q.mu.Lock()
	defer q.mu.Unlock()
	g.fetchers--
	if g.fetchers == 0 && len(g.items) == 0 {
		for i := range q.groups {
			if q.groups[i] == g {
				q.groups = slices.Delete(q.groups, i, i+1)
				delete(q.of, g.box)
				break
			}
		}
	}
	q.changed.Broadcast()
}

// end says that no more will be pushed.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.changed.Broadcast()
}

// isDropped reports whether what waited was given up.
func (q *queue) isDropped() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// drop gives up what waits.
func (q *queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped, q.groups, q.of, q.size = true, nil, nil, 0
	q.changed.Broadcast()
}

// lanes counts the calls that run on a session: at most as many as it has
// lanes, which it may change at any time.
type lanes struct {
	mu      sync.Mutex
	changed sync.Cond
	used    int
	listing int  // listings that wait for a lane
	giving  bool // a fetch ends for one of them
	most    func() int
}

func newLanes(most func() int) *lanes {
	l := &lanes{most: most}
	l.changed.L = &l.mu
	return l
}

// acquire waits for a lane to fetch with.
func (l *lanes) acquire(ctx context.Context) error { return l.wait(ctx, false) }

// acquireToList waits for a lane ahead of those who fetch: what a listing
// finds is their work.
func (l *lanes) acquireToList(ctx context.Context) error { return l.wait(ctx, true) }

// give reports whether the caller's fetch is to end for a listing that waits:
// one of those that run, and never the only one.
func (l *lanes) give() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listing == 0 || l.giving || l.used < 2 {
		return false
	}
	l.giving = true
	return true
}

// all returns how many lanes there are.
func (l *lanes) all() int { return max(1, l.most()) }

func (l *lanes) wait(ctx context.Context, listing bool) error {
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if listing {
		l.listing++
		defer func() {
			l.listing--
			l.giving = false
			l.changed.Broadcast()
		}()
	}
	for l.used >= max(1, l.most()) || !listing && l.listing > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		l.changed.Wait()
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	l.used++
	return nil
}

func (l *lanes) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used--
	l.changed.Broadcast()
}
