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
		for len(b.items) == 0 && !b.closed {
			b.changed.Wait()
		}
		if len(b.items) == 0 {
			return
		}
		items := b.items
		b.items, b.spare, b.weight = b.spare[:0], nil, 0
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

// put adds an item; weight is about what it takes on the wire.
func (b *batcher[T]) put(item T, weight int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.weight > 0 && b.weight+weight > maxBatch && b.err == nil {
		b.changed.Wait()
	}
	if b.err != nil {
		return b.err
	}
	b.items = append(b.items, item)
	b.weight += weight
	b.changed.Broadcast()
	return nil
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
