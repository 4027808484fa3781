// Package letters keeps the dead letters of all tasks in a stream, where
// `pipeline failed` finds them without asking each task's ledger: the last word
// on each message and sink, one subject each.
package letters

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Letter is a dead letter of a task.
type Letter struct {
	Task string     `json:"task"`
	ID   message.ID `json:"id"`
	Sink string     `json:"sink,omitempty"` // that has to do without it; empty: all
	ledger.Letter
}

// Box is the stream. It may be used by many goroutines.
type Box struct{ c *cluster.Cluster }

// Open returns the pipeline's.
func Open(c *cluster.Cluster) *Box { return &Box{c} }

func (b *Box) subject(l *Letter) string {
	sum := sha256.Sum256([]byte(l.ID.String() + "\x00" + l.Sink))
	return b.of(l.Task) + hex.EncodeToString(sum[:10])
}

func (b *Box) of(task string) string { return b.c.Name() + ".letter." + task + "." }

// Replace makes these the dead letters of the task: those that it had before
// and that aren't among them are taken out.
func (b *Box) Replace(ctx context.Context, task string, all []Letter) error {
	keep := map[string]bool{}
	for i := range all {
		subject := b.subject(&all[i])
		keep[subject] = true
		body, err := json.Marshal(&all[i])
		if err != nil {
			return fault.New(fault.Bug, "write a dead letter: %w", err)
		}
		_, err = b.c.JetStream.Publish(ctx, subject, body)
		if errors.Is(err, nats.ErrMaxPayload) { // what the server sent in the message's place stays in the task's ledger
			short := all[i]
			short.Octets = nil
			if body, err = json.Marshal(&short); err == nil {
				_, err = b.c.JetStream.Publish(ctx, subject, body)
			}
		}
		if err != nil {
			return cluster.Wrap(err, "keep a dead letter of task %s", task)
		}
	}
	info, err := b.c.Letters.Info(ctx, jetstream.WithSubjectFilter(b.of(task)+"*"))
	if err != nil {
		return cluster.Wrap(err, "look for dead letters of task %s", task)
	}
	for subject := range info.State.Subjects {
		if !keep[subject] {
			if err := b.c.Letters.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
				return cluster.Wrap(err, "take back a dead letter of task %s", task)
			}
		}
	}
	return nil
}

// Each calls f for each dead letter that stands, in the order in which they
// came.
func (b *Box) Each(ctx context.Context, f func(*Letter) error) error {
	info, err := b.c.Letters.Info(ctx)
	if err != nil {
		return cluster.Wrap(err, "look for dead letters")
	}
	if info.State.Msgs == 0 {
		return nil
	}
	consumer, err := b.c.Letters.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return cluster.Wrap(err, "read the dead letters")
	}
	messages, err := consumer.Messages()
	if err != nil {
		return cluster.Wrap(err, "read the dead letters")
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
				return nil
			}
			return cluster.Wrap(err, "read the dead letters")
		}
		l := &Letter{}
		if err := json.Unmarshal(msg.Data(), l); err != nil {
			return fault.New(fault.Bug, "read a dead letter: %w", err)
		}
		if err := f(l); err != nil {
			return err
		}
		if m, err := msg.Metadata(); err == nil && (m.NumPending == 0 || m.Sequence.Stream >= info.State.LastSeq) {
			return nil
		}
	}
}
