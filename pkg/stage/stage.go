// Package stage is what the author of a stage plugin imports: the interface.
// A stage sees one message at a time, may change it, and lets it pass or not.
package stage

import (
	"context"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Verdict is what a stage says of a message.
type Verdict int

// The verdicts. The numbers are part of the wire contract.
const (
	Keep      Verdict = iota + 1
	Drop              // counted under the stage's name
	Undecided         // a value that the stage reads is absent: kept and counted, unless the file says otherwise
)

// Spec says what a stage reads and does.
type Spec struct {
	Needs      message.Needs
	Changes    bool // it changes octets: the index says so, the sha256 stays the original's
	NeedsWhole bool // it calls Body.Whole
}

// Stage is one session. Apply is called from one goroutine at a time.
type Stage interface {
	// Apply judges one message, which is the stage's until Apply returns, and
	// may change it: its summary, and where Spec.Changes says so its octets,
	// by putting another Body into its place. That Body is read after Apply
	// has returned, until the next Apply, and may read on from the one that
	// it replaces. The id is never changed. The same message gets the same
	// verdict and the same octets, whatever came before it: it may come
	// again after a crash (I2).
	//
	// An error of class Message is this message's dead letter; any other is
	// the session's. When ctx ends Apply returns within a second.
	Apply(ctx context.Context, m *message.Message) (Verdict, error)

	// Close ends the session. It is called once, when no Apply is running.
	Close() error
}
