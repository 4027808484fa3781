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
	Apply(ctx context.Context, m *message.Message) (Verdict, error)
	Close() error
}
