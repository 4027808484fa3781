// Package target is what sinks that write to a file system share: the marker
// that says whose a target is, files that appear whole or not at all, the
// manifest of what was written, and making it all durable at once (I2, I3).
package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Books is the folder in a target where a sink keeps what isn't mail: its
// marker, its manifest, its temporary files.
const Books = ".mailhaul"

const markerName = "target.json"

// lockPatience is how long Open waits for another process to let go of the
// target: a plugin whose host was killed notices within a second or two.
const lockPatience = 10 * time.Second

// Owner says who opens a target and with which of the user's permissions. It
// is filled from sink.State.
type Owner struct {
	Sink     string // the sink's name in the file
	Pipeline string // the pipeline's id
	Known    bool   // the ledger has rows for this target: its marker must be there
	Adopt    bool   // the user said --adopt: take over what is there
	Rewrite  bool   // the user said --rewrite: everything is written anew

	// Fence is that of the sink's state: not zero where the target has other
	// writers too, as only one in a bucket may.
	Fence Fence

	// Store is the socket of the store of objects, for a target in a bucket;
	// Spool is where files wait that are too large for memory until they are
	// uploaded. A directory needs neither.
	Store string
	Spool *message.Spool
}

// marker is the content of target.json.
type marker struct {
	Version  int    `json:"version"`
	Pipeline string `json:"pipeline"`
	Sink     string `json:"sink"`
	// Adopted: there was something when the target was taken over. It stays,
	// so that a crash before the first commit doesn't make the next run take
	// what was there for its own.
	Adopted bool `json:"adopted,omitempty"`
}

// Claim is a target that is ours: marked, and locked until Release.
type Claim struct {
	Books   string // absolute path of the books, made
	Adopted bool   // there was something, now or earlier, and the user let us take it over
	lock    *os.File
	name    string // of the target, for the user
	sink    string
}

// Take claims the target that the user knows as name and whose books are kept
// in the folder books. occupied names something that is already there; it may
// return "". Nothing is made on disk before the target is known to be ours, so
// that the mount point of an unmounted disk stays empty. Errors are of class
// Config (it isn't ours), Unavailable (another process has it) or Full.
func Take(ctx context.Context, name, books string, o Owner, occupied func() (string, error)) (*Claim, error) {
	if err := o.Fence.refuse(name); err != nil {
		return nil, err
	}
	c := &Claim{Books: books, name: name, sink: o.Sink}
	read := func() (*marker, error) { return readMarker(books) }
	if _, _, err := check(name, filepath.Join(books, markerName), o, read, occupied); err != nil {
		return nil, err
	}
	if err := MakeDirs(books); err != nil {
		return nil, err
	}
	if err := c.acquire(ctx, name); err != nil {
		return nil, err
	}
	// Again, now that nobody else can change it.
	mark, adopted, err := check(name, filepath.Join(books, markerName), o, read, occupied)
	if err == nil {
		err = removeUnfinished(books)
	}
	if err == nil && mark {
		err = c.mark(o, adopted)
	}
	if err != nil {
		c.Release()
		return nil, err
	}
	c.Adopted = adopted
	return c, nil
}

// removeUnfinished removes what a crash left of files that were being written
// to the books (I2).
func removeUnfinished(books string) error {
	entries, err := os.ReadDir(books)
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, ".") && strings.HasSuffix(name, unfinished) {
			err = errors.Join(err, os.Remove(filepath.Join(books, name)))
		}
	}
	return DiskError(err, "clean up %s", books)
}

// Check returns an error of class Full where the target isn't at its path any
// more: its folder, or its books, was removed or moved away, or another was put
// or mounted in its place. Writing to files that are open goes on to succeed
// then, so who promises that something is there asks after it was made durable
// (I3). It costs two system calls.
func (c *Claim) Check() error {
	mine, err := c.lock.Stat()
	if err != nil {
		return DiskError(err, "look at the lock of the target %s", c.name)
	}
	there, err := os.Stat(c.lock.Name())
	switch {
	case err == nil && os.SameFile(mine, there):
		return nil
	case err == nil:
		err = errors.New("another folder is in its place")
	}
	return fault.As(fault.Wrap(fault.Full, err, "the target %s was removed or moved away while the run wrote to it", c.name)).
		WithHint("put it back and run again: it goes on where it stopped; if it is gone for good, write everything anew with --rewrite %s", c.sink)
}

// vanished returns what Check finds where an error says that something isn't
// there. In a folder that was removed ext4 has EPERM for a file without a name.
func (c *Claim) vanished(err error) error {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EPERM) {
		return nil
	}
	return c.Check()
}

// Release lets go of the lock. The marker stays.
func (c *Claim) Release() { c.lock.Close() }

// check decides whether the target may be opened, and whether it must be
// marked first.
func check(name, at string, o Owner, read func() (*marker, error), occupied func() (string, error)) (mark, adopted bool, err error) {
	found, err := read()
	if err != nil {
		return false, false, err
	}
	switch {
	case found != nil && found.Pipeline == o.Pipeline && found.Sink == o.Sink:
		return false, found.Adopted, nil
	case found != nil && !o.Adopt:
		return false, false, fault.New(fault.Config, "the target %s belongs to the sink %q of the pipeline %q (%s), not to the sink %q of %q",
			name, found.Sink, found.Pipeline, at, o.Sink, o.Pipeline).
			WithHint("%s", foreign(found, &o)).WithKey("path")
	case found != nil:
		return true, true, nil
	case o.Known && !o.Rewrite:
		return false, false, fault.New(fault.Config, "the ledger has messages in the target %s, but its marker %s is gone",
			name, at).
			WithHint("mount the disk if it isn't mounted; or write everything anew with --rewrite %s", o.Sink).WithKey("path")
	}
	thing, err := occupied()
	if err != nil {
		return false, false, DiskError(err, "look at the target %s", name)
	}
	if thing != "" && !o.Adopt {
		return false, false, fault.New(fault.Config, "the target %s isn't empty (there is %s) and has no marker of this pipeline", name, thing).
			WithHint("write to an empty path, or take it over with --adopt %s", o.Sink).WithKey("path")
	}
	return true, thing != "", nil
}

// foreign says what to do about the target of another pipeline, which may be
// the same one with another ledger.
func foreign(found *marker, o *Owner) string {
	if found.Sink == o.Sink && !o.Known {
		return fmt.Sprintf("if this pipeline wrote it, and its state was lost: pipeline verify --rebuild makes that anew; else write to another path, or take it over with --adopt %s", o.Sink)
	}
	return "write to another path, or take it over with --adopt " + o.Sink
}

// Marked returns the id of the pipeline and the name of the sink that the
// marker in books names; both are empty when there is no marker. Errors are of
// class Config or Full.
func Marked(books string) (pipeline, sink string, err error) {
	m, err := readMarker(books)
	if m == nil || err != nil {
		return "", "", err
	}
	return m.Pipeline, m.Sink, nil
}

// readMarker returns nil when there is none.
func readMarker(books string) (*marker, error) {
	path := filepath.Join(books, markerName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, DiskError(err, "read the target's marker %s", path)
	}
	return parseMarker(b, path)
}

func parseMarker(b []byte, path string) (*marker, error) {
	m := &marker{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fault.New(fault.Config, "the target's marker %s can't be read: %w", path, err).
			WithHint("remove it, and take the target over with --adopt")
	}
	if m.Version != 1 {
		return nil, fault.New(fault.Config, "the target's marker %s is of version %d; this program knows 1", path, m.Version).
			WithHint("use the newer program that wrote it")
	}
	return m, nil
}

func (c *Claim) mark(o Owner, adopted bool) error {
	b, err := newMarker(o, adopted)
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(c.Books, markerName), b)
}

func newMarker(o Owner, adopted bool) ([]byte, error) {
	b, err := json.Marshal(marker{Version: 1, Pipeline: o.Pipeline, Sink: o.Sink, Adopted: adopted})
	if err != nil {
		return nil, fault.Wrap(fault.Bug, err, "make the target's marker")
	}
	return append(b, '\n'), nil
}

// acquire waits for the lock: the last run's plugin may still be ending.
func (c *Claim) acquire(ctx context.Context, name string) error {
	path := filepath.Join(c.Books, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return DiskError(err, "open the target's lock %s", path)
	}
	c.lock = f
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		err := tryLock(f)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errLocked) {
			f.Close()
			return DiskError(err, "lock %s", path)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return fault.New(fault.Unavailable, "another process is writing to the target %s: %w", name, ctx.Err()).
				WithHint("wait until the other run has ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
