package mailnet

import "iter"

// Feed pulls batches of ids on a goroutine of its own, one ahead: the host may
// keep a source waiting for the next batch while answers to the last must be
// read. The channel is closed when the ids end. stop ends it; the batch that
// was pulled last may then be lost, as Source.Fetch may do when it ends early.
func Feed[T any](ids iter.Seq[[]T]) (batches <-chan []T, stop func()) {
	out, done := make(chan []T), make(chan struct{})
	go func() {
		defer close(out)
		for batch := range ids {
			select {
			case out <- batch:
			case <-done:
				return
			}
		}
	}()
	return out, func() { close(done) }
}
