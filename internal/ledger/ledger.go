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
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	_ "modernc.org/sqlite" // the driver

	"github.com/mailhaul/pipeline/pkg/fault"
	disk "github.com/mailhaul/pipeline/pkg/target" // what is durable; target is a word of the ledger itself
)

// Ledger is an open ledger. Its methods may be called by many goroutines;
// writes follow one another.
type Ledger struct {
	db       *sql.DB
	lock     *os.File
	path     string
	pipeline string
	whole    bool        // it was opened for writing, and nothing was wrong with it
	file     os.FileInfo // of path when it was opened for writing; nil: it wasn't
	// durable makes a change of a scratch ledger durable; else nil.
	durable func(context.Context, Change) error

	mu sync.Mutex // one writer at a time: SQLite has one, and waiting here is cheaper

	boxMu    sync.Mutex
	boxes    map[boxKey]Box // those asked for in this run
	lastBox  Box
	newBoxes []newBox

	aliased atomic.Bool // some message was exported under another id
}

// maxConns bounds the connections, each of which has a cache of its own (I5).
// Reads are short: more at once than there are cores gain nothing.
const maxConns = 4

// Open opens the ledger of the pipeline called name in dir, and makes both
// when they aren't there. The ledger is locked until Close; a *LockedError
// says who holds it.
func Open(ctx context.Context, dir, name string) (*Ledger, error) {
	if err := MakeDir(dir); err != nil {
		return nil, err
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

// MakeDir makes the directory of a state, for its owner alone, as Open does.
func MakeDir(dir string) error {
	if err := makeDirs(dir); err != nil {
		return unwritable(err, "make the state directory")
	}
	return nil
}

// makeDirs makes a directory and those above it, and their names durable: a
// ledger whose folder goes with a power cut is no ledger (I3). SQLite sees to
// the names in it.
func makeDirs(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	up := filepath.Dir(path)
	if up != path {
		if err := makeDirs(up); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return disk.SyncDir(up)
}

// View opens the ledger of the pipeline called name in dir for reading, beside
// a run that may hold its lock: every answer is as of some commit. Whatever
// writes fails. When there is no ledger yet, the error is a fault.Config that
// wraps fs.ErrNotExist.
func View(ctx context.Context, dir, name string) (*Ledger, error) {
	l := &Ledger{path: filepath.Join(dir, name+".db"), boxes: map[boxKey]Box{}}
	if _, err := os.Stat(l.path); err != nil {
		return nil, none(err)
	}
	err := l.connect(url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(5000)", "query_only(1)", "cache_size(-8000)", "cell_size_check(1)"}})
	if err == nil {
		err = l.made(ctx)
	}
	if err == nil {
		err = l.known(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// made returns an error where the first run has made the file, and not yet its
// tables. One that was sealed had tables, and has lost them.
func (l *Ledger) made(ctx context.Context) error {
	if empty, err := l.empty(ctx); err != nil || !empty {
		return err
	}
	if _, err := os.Stat(l.path + sealEnd); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return none(&fs.PathError{Op: "read", Path: l.path, Err: fs.ErrNotExist})
}

// none is the error where there is no ledger yet.
func none(err error) error {
	return fault.Wrap(fault.Config, err, "open the ledger").(*fault.Error).
		WithKey("state").WithHint("there is one after the first run: pipeline run")
}

// connect makes the pool of connections.
func (l *Ledger) connect(q url.Values) error {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: l.path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return l.wrap(err, "open")
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	l.db = db
	return nil
}

func (l *Ledger) dir() string { return filepath.Dir(l.path) }

func (l *Ledger) open(ctx context.Context) error {
	broken, err := l.checkSeal()
	if err != nil {
		return disk.DiskError(err, "ledger %s: check its seal", l.path)
	}
	if broken != nil && broken.found.Size == 0 { // which SQLite would take for a new one
		return l.wrap(&damage{"the file", broken}, "open")
	}
	// Made here, and never by a connection that is opened later: were the folder
	// replaced meanwhile, that would begin another ledger in it.
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return unwritable(err, "ledger %s: open", l.path)
	}
	f.Close()
	// FULL: a commit survives a power cut, not only a crash (I3). Damage is
	// to be an error, not a wrong answer: cell_size_check.
	err = l.connect(url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-4000)", "cell_size_check(1)"}})
	if err != nil {
		return err
	}
	empty, err := l.empty(ctx)
	if err != nil {
		return err
	}
	if empty {
		var id [16]byte
		rand.Read(id[:])
		if err := l.create(ctx, hex.EncodeToString(id[:])); err != nil {
			return err
		}
	}
	if err := l.known(ctx); err != nil {
		return err
	}
	if err := l.unseal(ctx, broken); err != nil {
		return err
	}
	if l.file, err = os.Stat(l.path); err != nil {
		return disk.DiskError(err, "ledger %s: open", l.path)
	}
	l.whole = true
	return nil
}

// empty reports whether nothing was ever written to the file.
func (l *Ledger) empty(ctx context.Context) (yes bool, err error) {
	err = l.db.QueryRowContext(ctx, "SELECT application_id = 0 AND user_version = 0 AND NOT EXISTS (SELECT 1 FROM sqlite_master) FROM pragma_application_id, pragma_user_version").Scan(&yes)
	return yes, l.wrap(err, "open")
}

// known makes sure that the file is a ledger that this program knows, and
// reads what is always wanted of it.
func (l *Ledger) known(ctx context.Context) error {
	var id, version int
	err := l.db.QueryRowContext(ctx, "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version").Scan(&id, &version)
	switch {
	case err != nil:
		return l.wrap(err, "open")
	case id != applicationID:
		return fault.New(fault.Config, "ledger %s: the file isn't a ledger", l.path).
			WithKey("state").WithHint("move it aside, or name another state directory")
	case version != schemaVersion:
		return fault.New(fault.Config, "ledger %s: its format is version %d, this program knows %d", l.path, version, schemaVersion).
			WithKey("state").WithHint("use the program that wrote it, or a new state directory")
	}
	if err := l.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'pipeline'").Scan(&l.pipeline); err != nil {
		return l.wrap(err, "read the pipeline's id")
	}
	var aliased bool
	err = l.db.QueryRowContext(ctx, "SELECT (SELECT COALESCE(MAX(id), 0) FROM box), EXISTS (SELECT 1 FROM alias)").Scan(&l.lastBox, &aliased)
	l.aliased.Store(aliased)
	return l.wrap(err, "read the mailboxes")
}

func (l *Ledger) create(ctx context.Context, pipeline string) error {
	return l.write(ctx, "create", func(ctx context.Context, tx *transaction) error {
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO meta VALUES ('pipeline', ?)", pipeline); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, schemaVersion))
		return err
	})
}

// Close closes the ledger, seals it, and gives up its lock.
func (l *Ledger) Close() error {
	var err error
	if l.db != nil {
		s, unsealed := seal{}, errors.New("it isn't whole")
		if l.whole && l.gone("seal") == nil {
			s, unsealed = l.stamp(context.Background())
		}
		err = l.db.Close()
		if err == nil && unsealed == nil {
			// Without a seal the next Open sees less, and loses nothing: on a
			// full disk there is none.
			_ = l.seal(s)
		}
		l.whole = false
	}
	if l.lock == nil {
		return err // a View, or a Scratch
	}
	// A child that is being forked at this moment has the file too, and the
	// lock with it, until it is another program: closing alone isn't enough.
	return errors.Join(err, unlock(l.lock), l.lock.Close())
}

// Pipeline returns the id that was made with the ledger: it stands in the
// markers of the targets.
func (l *Ledger) Pipeline() string { return l.pipeline }

// Path returns the ledger's file.
func (l *Ledger) Path() string { return l.path }

// write runs f in one transaction.
func (l *Ledger) write(ctx context.Context, tried string, f func(context.Context, *transaction) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A cancelled context must not tear a commit whose sinks have flushed:
	// the transaction is short, and goes on.
	ctx = context.WithoutCancel(ctx)
	t, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return l.wrap(err, tried)
	}
	tx := &transaction{sql: t}
	if l.durable != nil {
		tx.journal = &journal{}
	}
	boxes, err := l.addBoxes(ctx, tx)
	if err == nil {
		err = f(ctx, tx)
	}
	if err == nil && l.durable != nil {
		err = l.keep(ctx, t, tx.journal)
	}
	if err != nil {
		return errors.Join(l.wrap(err, tried), ignoreDone(t.Rollback()))
	}
	if err := t.Commit(); err != nil {
		return l.wrap(err, tried)
	}
	// SQLite goes on in files that are removed: what isn't at its path isn't done (I3).
	if err := l.gone(tried); err != nil {
		return err
	}
	l.boxMu.Lock()
	defer l.boxMu.Unlock()
	l.newBoxes = l.newBoxes[boxes:]
	return nil
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
