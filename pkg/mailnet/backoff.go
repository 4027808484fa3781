package mailnet

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff gives growing waits with jitter, so that many clients of one server
// don't come back at once. It is used by one goroutine.
type Backoff struct {
	Min time.Duration // the first wait; 0 means 500 ms
	Max time.Duration // 0 means 1 min
	n   int
}

// Next returns the next wait: between half and all of Min·2ⁿ, at most Max.
func (b *Backoff) Next() time.Duration {
	lo, hi := b.Min, b.Max
	if lo <= 0 {
		lo = 500 * time.Millisecond
	}
	if hi <= 0 {
		hi = time.Minute
	}
	d := lo << min(b.n, 20)
	if d > hi || d <= 0 {
		d = hi
	}
	b.n++
	return d/2 + rand.N(d/2+1)
}

// Tries returns how often Next was called since the last Reset.
func (b *Backoff) Tries() int { return b.n }

// Reset starts over, after a success.
func (b *Backoff) Reset() { b.n = 0 }

// Sleep waits for d or until ctx ends, and then returns its cause.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
