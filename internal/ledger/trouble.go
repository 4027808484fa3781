package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/mailhaul/pipeline/pkg/fault"
	disk "github.com/mailhaul/pipeline/pkg/target"
)

// damaged marks an error that says that the file is damaged.
type damaged struct{ error }

func (d damaged) Unwrap() error { return d.error }

// PutAside looks whether the ledger of the pipeline called name in dir is
// damaged, or no sink ever committed anything to it: so is one that was made
// where another was lost. If it is, its files are renamed, and stay for who
// wants to look into them. It returns the new name; empty where the ledger is
// neither, or there is none.
func PutAside(ctx context.Context, dir, name string) (aside string, err error) {
	path := filepath.Join(dir, name+".db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	used, why := false, "damaged"
	l, err := Open(ctx, dir, name)
	if err == nil {
		var says string
		err = l.wrap(l.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&says), "check")
		if err == nil && says != "ok" {
			err = l.wrap(&damage{"the file", errors.New(says)}, "check")
		}
		if err == nil {
			err = l.wrap(l.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM target WHERE known OR checkpoint IS NOT NULL)").Scan(&used), "look for sinks")
		}
		l.whole = err == nil
		if cerr := l.Close(); err == nil {
			err = cerr
		}
	}
	switch {
	case errors.As(err, &damaged{}):
	case err != nil || used:
		return "", err
	default:
		why = "unused"
	}
	// Its lock is given up: whoever opens it now finds what this found.
	for n := 1; aside == ""; n++ {
		try := fmt.Sprintf("%s.%s-%d", path, why, n)
		if _, err := os.Stat(try); errors.Is(err, fs.ErrNotExist) {
			aside = try
		}
	}
	for _, end := range []string{sealEnd, "-wal", "-shm", ""} {
		if err := os.Rename(path+end, aside+end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", disk.DiskError(err, "put the %s ledger %s aside", why, path)
		}
	}
	return aside, disk.DiskError(disk.SyncDir(dir), "put the %s ledger %s aside", why, path)
}

// damage says that what stands in the ledger can't be what was written.
type damage struct {
	what string
	err  error
}

func (d *damage) Error() string { return d.what + " can't be read: " + d.err.Error() }
func (d *damage) Unwrap() error { return d.err }

const roomHint = "make room where the ledger is, and see whether its disk is well; nothing that was committed is lost"

// full returns what the disk says to a new file beside the ledger, nil where
// it takes one: SQLite doesn't tell why it couldn't make its own.
func (l *Ledger) full() error {
	f, err := os.CreateTemp(filepath.Dir(l.path), ".room")
	if err == nil {
		_, err = f.Write(make([]byte, 4096))
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return err
}

// unwritable gives an error of the disk its class: where no file can be made,
// the user names another place; all else is a disk without room, or not well.
func unwritable(err error, tried string, args ...any) error {
	f := fault.As(fault.Wrap(fault.Full, err, tried, args...))
	for _, e := range []error{fs.ErrPermission, fs.ErrNotExist, syscall.EROFS, syscall.ENOTDIR, syscall.EISDIR, syscall.ENAMETOOLONG, syscall.ELOOP} {
		if errors.Is(err, e) {
			f.Class = fault.Config
			return f.WithKey("state").WithHint("name a directory that can be written to with `state:`")
		}
	}
	return f.WithHint(roomHint)
}

// gone returns an error of class Full where the ledger isn't at its path any
// more, nil where it is, or was opened for reading only.
func (l *Ledger) gone(tried string) error {
	if l.file == nil {
		return nil
	}
	there, err := os.Stat(l.path)
	switch {
	case err == nil && os.SameFile(l.file, there):
		return nil
	case err == nil:
		err = errors.New("another file is in its place")
	}
	return fault.As(fault.Wrap(fault.Full, err, "ledger %s: %s: it was removed or moved away during the run", l.path, tried)).
		WithHint("put the state directory back and run again; if it is gone for good, pipeline verify --rebuild makes a new ledger of what was exported")
}

// wrap classes SQLite's errors by their words; the driver's numbers would tie
// us to one driver.
func (l *Ledger) wrap(err error, tried string) error {
	var bad *damage
	switch {
	case err == nil:
		return nil
	case fault.As(err) != nil:
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), contains(err, "interrupted"):
		return fmt.Errorf("ledger %s: %s: %w", l.path, tried, err) // nobody's fault
	case l.gone(tried) != nil:
		return l.gone(tried)
	case contains(err, "disk is full", "no space left", "disk I/O error"):
		return fault.As(fault.Wrap(fault.Full, err, "ledger %s: %s", l.path, tried)).
			WithHint(roomHint)
	case errors.As(err, &bad), errors.Is(err, sql.ErrNoRows),
		contains(err, "malformed", "not a database", "no such table", "no such column", "Scan error",
			// Nothing is inserted that wasn't looked for before, under the lock.
			"UNIQUE constraint failed"):
		return fault.As(fault.Wrap(fault.Config, damaged{err}, "ledger %s: %s", l.path, tried)).WithKey("state").
			WithHint("the file is damaged: pipeline verify --rebuild keeps it aside, and makes a new one of what was exported")
	case contains(err, "readonly", "unable to open"):
		if why := l.full(); why != nil {
			return unwritable(why, "ledger %s: %s", l.path, tried)
		}
		return fault.As(fault.Wrap(fault.Config, err, "ledger %s: %s", l.path, tried)).WithKey("state").
			WithHint("the state directory must be writable")
	}
	return fault.Wrap(fault.Bug, err, "ledger %s: %s", l.path, tried)
}

func contains(err error, words ...string) bool {
	text := err.Error()
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}
