package wire

import "sync"

// maxBatch is the most weight that a batch gathers while the stream is busy
// before whoever adds to it has to wait.
const maxBatch = 256 << 10

// batcher gathers items and sends them from a goroutine of its own, all that
// there are whenever the stream can take them. Put is called by one goroutine.
type batcher[T any] struct {
	send func([]T) error

	mu      sync.Mutex
	changed sync.Cond
	items   []T
	spare   []T
	weight  int
	due     bool // what there is goes out as soon as the stream can take it
	closed  bool
	err     error
	done    chan struct{}
}

func newBatcher[T any](send func([]T) error) *batcher[T] {
	b := &batcher[T]{send: send, done: make(chan struct{})}
	b.changed.L = &b.mu
	go b.run()
	return b
}

func (b *batcher[T]) run() {
	defer close(b.done)
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		for !b.due && !b.closed {
			b.changed.Wait()
		}
		if len(b.items) == 0 {
			if b.closed {
				return
			}
			b.due = false
			continue
		}
		items := b.items
		b.items, b.spare, b.weight, b.due = b.spare[:0], nil, 0, false
		b.changed.Broadcast()
		b.mu.Unlock()
		err := b.send(items)
		clear(items)
		b.mu.Lock()
		b.spare = items
		if err != nil {
			b.err = err
			b.changed.Broadcast()
			return
		}
	}
}

// put adds an item and has it sent; weight is about what it takes on the wire.
func (b *batcher[T]) put(item T, weight int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.append(item, weight)
	b.hurry()
	return err
}

// add is put for an item that may wait for others, at the longest until flush.
func (b *batcher[T]) add(item T, weight int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(item, weight)
}

// flush has everything sent that add has left waiting. It doesn't wait for it.
func (b *batcher[T]) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hurry()
}

func (b *batcher[T]) append(item T, weight int) error {
	for b.weight > 0 && b.weight+weight > maxBatch && b.err == nil {
		b.hurry()
		b.changed.Wait()
	}
	if b.err == nil {
		b.items = append(b.items, item)
		b.weight += weight
	}
	return b.err
}

// hurry wakes the sender, once for each time that it has something to do.
func (b *batcher[T]) hurry() {
	if !b.due && len(b.items) > 0 {
		b.due = true
		b.changed.Broadcast()
	}
}

// close sends what is left and waits for it.
func (b *batcher[T]) close() error {
	b.mu.Lock()
	b.closed = true
	b.changed.Broadcast()
	b.mu.Unlock()
	<-b.done
	return b.err
}
