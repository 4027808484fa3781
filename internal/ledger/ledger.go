// Package ledger keeps what became of each message, for each sink: fates,
// dead letters, suspects, checkpoints and mailbox states, in one SQLite file.
// What it says is done is done: a fate is stored only after its sink has made
// the message durable (I3), and all of an epoch is stored in one transaction.
package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	_ "modernc.org/sqlite" // the driver

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Ledger is an open ledger. Its methods may be called by many goroutines;
// writes follow one another.
type Ledger struct {
	db       *sql.DB
	lock     *os.File
	path     string
	pipeline string

	mu    sync.Mutex // one writer at a time: SQLite has one, and waiting here is cheaper
	boxes map[boxKey]Box
}

type boxKey struct {
	source, mailbox string
	uidValidity     uint32
}

// Open opens the ledger of the pipeline called name in dir, and makes both
// when they aren't there. The ledger is locked until Close; a *LockedError
// says who holds it.
func Open(ctx context.Context, dir, name string) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Config, err, "make the state directory").(*fault.Error).
			WithKey("state").WithHint("name a directory that can be written to with `state:`")
	}
	lock, err := acquire(filepath.Join(dir, name+".lock"))
	if err != nil {
		return nil, err
	}
	l := &Ledger{lock: lock, path: filepath.Join(dir, name+".db"), boxes: map[boxKey]Box{}}
	if err := l.open(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Ledger) open(ctx context.Context) error {
	// FULL: a commit survives a power cut, not only a crash (I3).
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)", "cache_size(-16000)"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: l.path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return l.wrap(err, "open")
	}
	l.db = db
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return l.wrap(err, "open")
	}
	switch version {
	case 0:
		if err := l.create(ctx); err != nil {
			return err
		}
	case schemaVersion:
	default:
		return fault.New(fault.Config, "ledger %s: its format is version %d, this program knows %d", l.path, version, schemaVersion).
			WithKey("state").WithHint("use the program that wrote it, or a new state directory")
	}
	err = db.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'pipeline'").Scan(&l.pipeline)
	return l.wrap(err, "read the pipeline's id")
}

func (l *Ledger) create(ctx context.Context) error {
	var id [16]byte
	rand.Read(id[:])
	return l.write(ctx, "create", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO meta VALUES ('pipeline', ?)", hex.EncodeToString(id[:])); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "PRAGMA user_version = "+strconv.Itoa(schemaVersion))
		return err
	})
}

// Close closes the ledger and gives up its lock.
func (l *Ledger) Close() error {
	var err error
	if l.db != nil {
		err = l.db.Close()
	}
	return errors.Join(err, l.lock.Close())
}

// Pipeline returns the id that was made with the ledger: it stands in the
// markers of the targets.
func (l *Ledger) Pipeline() string { return l.pipeline }

// Path returns the ledger's file.
func (l *Ledger) Path() string { return l.path }

// write runs f in one transaction.
func (l *Ledger) write(ctx context.Context, tried string, f func(*sql.Tx) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A cancelled context must not tear a commit whose sinks have flushed:
	// the transaction is short, and goes on.
	ctx = context.WithoutCancel(ctx)
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return l.wrap(err, tried)
	}
	if err := f(tx); err != nil {
		return errors.Join(l.wrap(err, tried), ignoreDone(tx.Rollback()))
	}
	return l.wrap(tx.Commit(), tried)
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// wrap classes SQLite's errors by their words; the driver's numbers would tie
// us to one driver.
func (l *Ledger) wrap(err error, tried string) error {
	if err == nil {
		return nil
	}
	if fault.As(err) != nil {
		return err
	}
	text := fmt.Sprintf("ledger %s: %s", l.path, tried)
	switch {
	case contains(err, "disk is full", "no space left", "disk I/O error"):
		return fault.As(fault.Wrap(fault.Full, err, "%s", text)).WithHint("make room where the ledger is; nothing that was committed is lost")
	case contains(err, "malformed", "not a database"):
		return fault.As(fault.Wrap(fault.Config, err, "%s", text)).WithKey("state").
			WithHint("the file is damaged: move it aside; a new ledger writes everything again over the same names")
	case contains(err, "readonly", "unable to open"):
		return fault.As(fault.Wrap(fault.Config, err, "%s", text)).WithKey("state").WithHint("the state directory must be writable")
	}
	return fault.Wrap(fault.Bug, err, "%s", text)
}
