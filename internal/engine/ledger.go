package engine

import (
	"context"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Ledger is what a run asks of the ledger: *ledger.Ledger on one machine,
// *segments.Ledger where many workers share the work. Each method is as
// *ledger.Ledger says. What a writing method did is durable when it returns
// (I3), whole or not at all; an error of Commit ends the run. Methods may be
// called by many goroutines.
type Ledger interface {
	// Pipeline returns the id that stands in the markers of the targets.
	Pipeline() string

	// What became of messages.
	Box(ctx context.Context, source, mailbox string, uidValidity uint32) (ledger.Box, error)
	SavedState(ctx context.Context, source, mailbox string, uidValidity uint32) (ledger.BoxState, error)
	HasMessages(ctx context.Context, box ledger.Box) (bool, error)
	Lookup(ctx context.Context, box ledger.Box, ids []message.ID) ([]ledger.Entry, error)
	Commit(ctx context.Context, e ledger.Epoch) error
	AddSuspects(ctx context.Context, box ledger.Box, target ledger.TargetID, ids []message.ID) error

	// Where sinks write.
	Target(ctx context.Context, sink, target string) (ledger.Target, error)
	MarkDirty(ctx context.Context, id ledger.TargetID) error
	MarkClean(ctx context.Context, id ledger.TargetID) error
	Forget(ctx context.Context, id ledger.TargetID) error
	WrittenAndRemoved(ctx context.Context, id ledger.TargetID) (int64, error)

	// What messages share with their copies.
	NewClaims(ctx context.Context) (round int64, err error)
	Claim(ctx context.Context, round int64, box ledger.Box, claims []ledger.Claim) error
	Claimed(ctx context.Context, round int64, box ledger.Box, ids []message.ID) ([]ledger.Claimed, error)
	Copies(ctx context.Context, round int64, d ledger.Digest) ([]ledger.Copy, error)
	Hold(ctx context.Context, holdings []ledger.Holding) error
	Tell(ctx context.Context, box ledger.Box, id message.ID, d ledger.Digest) error
	ToldApart(ctx context.Context, round int64) (groups int64, err error)

	// Messages that have other ids now.
	OtherValidity(ctx context.Context, source, mailbox string, box ledger.Box) (*ledger.Formers, error)
	OwnStrings(ctx context.Context, box ledger.Box) (*ledger.Formers, error)
	Hashes(ctx context.Context, keys []int64) ([][]byte, error)
	Recognise(ctx context.Context, box ledger.Box, found []ledger.Recognised, former []ledger.Box) error

	// What follows on the server, and what may be fetched from it.
	Finish(ctx context.Context, box ledger.Box, flag string, ids []message.ID) error
	Finished(ctx context.Context, box ledger.Box, flag string, ids []message.ID) ([]bool, error)
	Spent(ctx context.Context, source string, since time.Time) ([]ledger.Spent, error)
}
