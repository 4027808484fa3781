package mailnet

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// Pace keeps a source to so many messages and octets a second, over all its
// connections. A nil Pace has no limits. It is safe for concurrent use.
type Pace struct {
	messages *rate.Limiter
	bytes    *rate.Limiter
}

// NewPace returns a pace; 0 means no limit. A second's worth may come at once.
func NewPace(messages, bytes float64) *Pace {
	if messages <= 0 && bytes <= 0 {
		return nil
	}
	p := new(Pace)
	if messages > 0 {
		p.messages = rate.NewLimiter(rate.Limit(messages), max(1, int(messages)))
	}
	if bytes > 0 {
		p.bytes = rate.NewLimiter(rate.Limit(bytes), max(1, int(bytes)))
	}
	return p
}

// Step returns how many of n messages to ask for at once: what comes in a
// second, so that a slow pace is felt as one and not as a long silence.
func (p *Pace) Step(n int) int {
	if p == nil || p.messages == nil {
		return n
	}
	return min(n, p.messages.Burst())
}

// Messages waits until n more messages may be asked for, or until ctx ends.
func (p *Pace) Messages(ctx context.Context, n int) error {
	if p == nil || p.messages == nil {
		return nil
	}
	for n > 0 {
		step := min(n, p.messages.Burst())
		if err := p.messages.WaitN(ctx, step); err != nil {
			return err
		}
		n -= step
	}
	return nil
}

// octets sleeps as long as n octets take, or until stop says so. It runs after
// the read: the kernel's window then slows the server down.
func (p *Pace) octets(n int, stop func() bool) {
	if p == nil || p.bytes == nil {
		return
	}
	for n > 0 {
		step := min(n, p.bytes.Burst())
		for d := p.bytes.ReserveN(time.Now(), step).Delay(); d > 0 && !stop(); d -= 200 * time.Millisecond {
			time.Sleep(min(d, 200*time.Millisecond))
		}
		n -= step
	}
}
