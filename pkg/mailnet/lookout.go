package mailnet

import "bufio"

// Lookout waits for the peer's next octet beside something else: who waits for
// an answer may then hear in time that there is more to ask for. The zero value
// is ready. One goroutine uses it, the one that reads.
type Lookout struct {
	done chan struct{} // nil: nothing is under way
	err  error         // valid once done is closed
}

// Ready returns a channel that is closed once r has something to read, or an
// error; nil: it has already. Until End nobody else may read from r.
func (l *Lookout) Ready(r *bufio.Reader) <-chan struct{} {
	if l.done != nil {
		return l.done
	}
	if r.Buffered() > 0 {
		return nil
	}
	done := make(chan struct{})
	l.done = done
	go func() {
		defer close(done)
		_, l.err = r.Peek(1)
	}()
	return done
}

// End waits until a look that Ready began has seen something, and returns its
// error. From then on r may be read; without a look it is at once.
func (l *Lookout) End() error {
	if l.done == nil {
		return nil
	}
	<-l.done
	l.done = nil
	return l.err
}
