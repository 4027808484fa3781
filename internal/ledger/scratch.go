package ledger

import (
	"context"
	"database/sql"
	"net/url"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Scratch says how to open a ledger in a file that may be lost: what it holds
// is kept elsewhere, by who gets each Change.
type Scratch struct {
	Path     string // the file; one that is there goes on
	Pipeline string // the id of the pipeline, for a new file
	// Replay are the journals to execute, in order.
	Replay [][]byte
	// Head is what the tables of a Head are to hold; nil leaves them.
	Head *Head
	// Durable is called with each change before it counts, one at a time. It
	// returns when the change is durable; after an error there is none.
	Durable func(context.Context, Change) error
}

// Change is what one transaction does.
type Change struct {
	Journal []byte // for Scratch.Replay; empty where a Head has all of it
	Head    Head   // as it will be
}

// Open opens it. It has no lock: who calls sees to it that it is the only one.
func (s Scratch) Open(ctx context.Context) (*Ledger, error) {
	l := &Ledger{path: s.Path, pipeline: s.Pipeline, boxes: map[boxKey]Box{}}
	// Nothing waits for the disk: after a crash the file is never read again.
	err := l.connect(url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(OFF)", "cache_size(-2000)"}})
	if err == nil {
		err = l.restore(ctx, s)
	}
	if err == nil {
		err = l.known(ctx)
	}
	if err != nil {
		if l.db != nil {
			_ = l.db.Close() // the file is of no use
		}
		return nil, err
	}
	if l.pipeline != s.Pipeline {
		_ = l.db.Close() // nothing was changed
		return nil, fault.New(fault.Config, "ledger %s: it belongs to another pipeline: %s, not %s", l.path, l.pipeline, s.Pipeline).
			WithHint("give each pipeline a stream of its own")
	}
	l.durable = s.Durable
	return l, nil
}

// restore brings the file up to where it was.
func (l *Ledger) restore(ctx context.Context, s Scratch) error {
	var empty bool
	if err := l.db.QueryRowContext(ctx, "SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)").Scan(&empty); err != nil {
		return l.wrap(err, "open")
	}
	if empty {
		if err := l.create(ctx, s.Pipeline); err != nil {
			return err
		}
	}
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return l.wrap(err, "open")
	}
	for _, b := range s.Replay {
		if err == nil {
			err = replay(ctx, tx, b)
		}
	}
	if err == nil && s.Head != nil {
		err = setHead(ctx, tx, s.Head)
	}
	if err != nil {
		_ = tx.Rollback() // the first error counts
		return l.wrap(err, "do again what was done")
	}
	return l.wrap(tx.Commit(), "do again what was done")
}

// keep hands a transaction to who makes it durable.
func (l *Ledger) keep(ctx context.Context, tx *sql.Tx, j *journal) error {
	if j.err != nil {
		return j.err
	}
	h, err := l.head(ctx, tx)
	if err != nil {
		return err
	}
	return l.durable(ctx, Change{j.b, h})
}
