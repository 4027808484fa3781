package engine

import (
	"context"
	"fmt"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/readback"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// rehash reads the files of a batch back from each sink, and returns the
// messages whose files are what was written. The others stay as they are on the
// server, which may have the only copy (I3).
func (f *finisher) rehash(ctx context.Context, batch finishing) ([]message.ID, error) {
	e, b := f.a.e, batch.box
	faultpoint.Hit("engine.rehash")
	entries, err := e.ledger.Lookup(ctx, batch.number, batch.ids)
	if err != nil {
		return nil, err
	}
	wrong := make([]error, len(entries))
	for k, o := range e.outlets {
		if o.files == nil {
			continue
		}
		var receipts []string
		var at []int
		for i := range entries {
			for _, fate := range entries[i].Fates {
				if fate.Target == e.targets[k] && fate.Class == ledger.Written && fate.Receipt != "" {
					receipts, at = append(receipts, fate.Receipt), append(at, i)
				}
			}
		}
		if len(receipts) == 0 {
			continue
		}
		errs, err := o.files.Check(ctx, receipts)
		if err != nil {
			return nil, fmt.Errorf("mailbox %s: read exported messages back from sink %s: %w", b.name, o.plan.Name, err)
		}
		for n, err := range errs {
			if err != nil && wrong[at[n]] == nil {
				wrong[at[n]] = fmt.Errorf("sink %s: %w", o.plan.Name, err)
			}
		}
	}
	faultpoint.Hit("engine.rehashed")
	same := batch.ids[:0]
	for i, id := range batch.ids {
		if wrong[i] == nil {
			same = append(same, id)
			continue
		}
		if b.alter(wrong[i]) > mostAltered {
			continue
		}
		e.note(Event{Kind: AccountNote, Source: f.a.plan.Name, Mailbox: b.name, Message: id.String(), Count: 1, Err: wrong[i],
			Text: fmt.Sprintf("%s stays as it is on the server: %v", id, wrong[i])})
	}
	return same, nil
}

// readBack reads the files of receipts back: the folder and the bucket of
// package readback.
type readBack interface {
	Check(ctx context.Context, receipts []string) ([]error, error)
	Close()
}

// closeFiles lets go of what was read back.
func (e *Engine) closeFiles() {
	for _, o := range e.outlets {
		if o.files != nil {
			o.files.Close()
		}
	}
}

// openFiles returns what reads the sink's files back; nil when nobody wants
// that, or it keeps no manifest.
func (e *Engine) openFiles(o *outlet) readBack {
	for i := range e.plan.Sources {
		if !e.plan.Sources[i].After.Rehash || !o.plan.Prepared.Manifest || o.plan.Prepared.Record {
			continue
		}
		if o.plan.Address != "" {
			return readback.NewBucket(o.plan.Address, e.opts.Store)
		}
		return readback.New(o.plan.Prepared.Target)
	}
	return nil
}

// mostAltered is how many messages of a mailbox are told by name: of a lost disk
// that were all. verify names each.
const mostAltered = 10

// alter counts an exported message whose files aren't what was written, and
// returns how many there are.
func (b *box) alter(err error) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.altered++
	if b.alteredBy == nil {
		b.alteredBy = err
	}
	return b.altered
}

// trouble is why the mailbox is incomplete; nil when it isn't. b.mu is held.
func (b *box) trouble() error {
	switch {
	case b.problem != nil || b.altered == 0:
		return b.problem
	case b.altered == 1:
		return fault.New(fault.Message, "an exported message stays as it is on the server, since its file isn't what was written: %w", b.alteredBy).
			WithHint("look at it with `pipeline verify`, and put the file back, or have the sink written anew with --rewrite")
	}
	return fault.New(fault.Message, "%d exported messages stay as they are on the server, since their files aren't what was written; the first: %w", b.altered, b.alteredBy).
		WithHint("look at them with `pipeline verify`, and put the files back, or have the sink written anew with --rewrite")
}
