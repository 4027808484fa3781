package target

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Dir is a directory target: files that appear whole or not at all, and a
// manifest of them. Create and the files are safe for concurrent use; Close, and
// Flush without a Seal, are called when no file is open.
type Dir struct {
	root     string
	claim    *Claim
	disk     *disk
	manifest *manifest
	next     atomic.Uint64 // number of the next temporary file
	free     sync.Pool     // of *File

	mu      sync.Mutex
	pending []string  // placed since the last sync, where syncfs can't be trusted
	changed bool      // since the last Seal or Flush
	sealed  *dirEpoch // waits for its Flush; else nil
	failed  error     // of a sync: what it didn't save is lost, so nothing may be promised any more
}

// dirEpoch is what one Flush makes durable.
type dirEpoch struct {
	pending  []string // as in Dir
	changed  bool     // so, too
	manifest int64    // its length with the epoch's last row
}

// maxPending bounds the names that wait for Flush (I5).
const maxPending = 8192

// dirCheckpoint is the token of a directory target: everything up to this
// length of the manifest is durable.
type dirCheckpoint struct {
	Version  int   `json:"v"`
	Manifest int64 `json:"manifest"`
}

// CommittedManifest returns up to which octet of the manifest a checkpoint of a
// directory target vouches for; ok is false for another sink's checkpoint.
func CommittedManifest(checkpoint []byte) (length int64, ok bool) {
	var cp struct {
		Version  int    `json:"v"`
		Manifest *int64 `json:"manifest"`
	}
	if json.Unmarshal(checkpoint, &cp) != nil || cp.Version != 1 || cp.Manifest == nil || *cp.Manifest < 0 {
		return 0, false
	}
	return *cp.Manifest, true
}

// DirCheckpoint returns the checkpoint of a directory target whose manifest
// has that length: for who makes a ledger anew from manifests.
func DirCheckpoint(manifest int64) ([]byte, error) {
	return json.Marshal(dirCheckpoint{Version: 1, Manifest: manifest})
}

// OpenDir claims the directory root and rolls its manifest
// back to the checkpoint that was committed last; nil: none was. A rewrite
// starts without a checkpoint.
func OpenDir(ctx context.Context, root string, o Owner, checkpoint []byte) (*Dir, error) {
	var cp dirCheckpoint
	if checkpoint != nil {
		if err := json.Unmarshal(checkpoint, &cp); err != nil || cp.Version != 1 || cp.Manifest < 0 {
			return nil, fault.New(fault.Bug, "the checkpoint %q of the target %s can't be read", checkpoint, root)
		}
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fault.New(fault.Config, "make the path %q absolute: %w", root, err).WithKey("path")
	}
	books := filepath.Join(root, Books)
	claim, err := Take(ctx, root, books, o, func() (string, error) { return occupant(root) })
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, claim: claim}
	if err := d.open(cp, claim.Adopted && !o.Rewrite); err != nil {
		claim.Release()
		return nil, err
	}
	return d, nil
}

func (d *Dir) open(cp dirCheckpoint, keep bool) error {
	temp := filepath.Join(d.claim.Books, "tmp")
	if err := removeTemps(temp); err != nil {
		return err
	}
	if err := MakeDirs(temp); err != nil {
		return err
	}
	var err error
	if d.disk, err = openDisk(d.root, temp); err != nil {
		return DiskError(err, "open the target %s", d.root)
	}
	if d.manifest, err = openManifest(d.claim.Books, cp.Manifest, keep); err != nil {
		d.disk.close()
		return err
	}
	return nil
}

// occupant names something in the directory that isn't a sink's: a target
// that stands inside another one, or beside it, has books of its own.
func occupant(root string) (string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	for _, e := range entries {
		if e.Name() == Books || e.Name() == "lost+found" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, Books, e.Name(), markerName)); err == nil {
			continue
		}
		return e.Name(), nil
	}
	return "", err
}

// Create begins a file.
func (d *Dir) Create() (*File, error) {
	f, _ := d.free.Get().(*File)
	if f == nil {
		f = &File{in: d, sum: sha256.New()}
	}
	f.size, f.body = 0, nil
	f.sum.Reset()
	var err error
	if f.h, err = d.disk.create(strconv.FormatUint(d.next.Add(1), 36)); err != nil {
		return nil, d.trouble(err, DiskError, "make a temporary file in the target %s", d.root)
	}
	return f, nil
}

// CreateFor begins a file that gets all octets of a body as they come, and no
// others. Where the host has told their sum it stands in the manifest, and they
// aren't hashed again.
func (d *Dir) CreateFor(b *message.Body) (*File, error) {
	f, err := d.Create()
	if err == nil && b.Summed() {
		f.body = b
	}
	return f, err
}

// trouble is what an error of the disk is to the user: that the target is gone,
// where it is; else what was tried.
func (d *Dir) trouble(err error, class func(err error, format string, args ...any) error, tried string, args ...any) error {
	if gone := d.claim.vanished(err); gone != nil {
		return gone
	}
	return class(err, tried, args...)
}

func (d *Dir) append(f *File, p []byte) error {
	if err := d.disk.write(&f.h, f.size, p); err != nil { // what DiskError is told is made for an error alone
		return DiskError(err, "write a message of at least %d octets to the target %s", f.size+int64(len(p)), d.root)
	}
	return nil
}

func (d *Dir) discard(f *File) {
	d.disk.discard(f.h)
	f.body = nil
	d.free.Put(f)
}

func (d *Dir) place(f *File, id message.ID, part, name string, modified time.Time) error {
	if !inside(name) {
		f.Discard()
		return fault.New(fault.Bug, "the name %q leaves the target %s", name, d.root)
	}
	sum, err := f.digest()
	if err != nil {
		f.Discard()
		return err
	}
	if !holdsTime(modified) {
		modified = time.Time{}
	}
	if err := d.disk.place(f.h, name, modified); err != nil {
		d.free.Put(f)
		return d.trouble(err, NameError, "write %s in the target %s", name, d.root)
	}
	size := f.size
	d.free.Put(f)
	if err := d.manifest.add(&id, part, name, size, &sum); err != nil {
		return err
	}
	return d.note(name)
}

// digest returns the sum of what was written.
func (f *File) digest() (sum [sha256.Size]byte, err error) {
	if f.body == nil {
		f.sum.Sum(sum[:0])
		return sum, nil
	}
	given, size := f.body.SHA256(), f.body.Size()
	f.body = nil
	if len(given) != len(sum) || size >= 0 && size != f.size {
		return sum, fault.New(fault.Bug, "a file of %d octets was to get a body of %d, with a sum of %d octets", f.size, size, len(given))
	}
	copy(sum[:], given)
	return sum, nil
}

// holdsTime reports whether every file system holds the time: a mail may claim
// any year.
func holdsTime(at time.Time) bool {
	return at.Year() >= 1902 && at.Year() <= 2446 // ext4's range is the narrowest in use
}

// note remembers that there is something to make durable.
func (d *Dir) note(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = true
	if d.disk.whole {
		return d.failed
	}
	d.pending = append(d.pending, name)
	if len(d.pending) < maxPending || d.failed != nil {
		return d.failed
	}
	d.fail(d.sync(d.pending))
	d.pending = d.pending[:0]
	return d.failed
}

// sync makes the files durable.
func (d *Dir) sync(names []string) error {
	return d.trouble(d.disk.sync(names), DiskError, "make the files in the target %s durable", d.root)
}

// fail notes an error of making something durable. A disk that failed once has
// lost octets that nobody will write again: it stays failed. The lock is held.
func (d *Dir) fail(err error) {
	if d.failed == nil {
		d.failed = err
	}
}

// seal implements Seal: what was placed so far is the next Flush's, and no more.
func (d *Dir) seal() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sealed != nil {
		return fault.New(fault.Bug, "the target %s was sealed twice without a Flush in between", d.root)
	}
	d.sealed = d.take()
	return d.failed
}

// take ends an epoch. The lock is held.
func (d *Dir) take() *dirEpoch {
	e := &dirEpoch{pending: d.pending, changed: d.changed, manifest: d.manifest.seal()}
	d.pending, d.changed = nil, false
	return e
}

// Flush makes everything that was placed durable, with the manifest, and
// returns the checkpoint that covers it; after a Seal, everything that was placed
// before that, while other files are placed.
func (d *Dir) Flush(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	e, err := d.sealed, d.failed
	if e == nil {
		e = d.take()
	}
	d.sealed = nil
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if e.changed {
		err = d.save(e)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// An error that came beside this one's work may be about its files too: the
	// disk tells of each only once.
	if d.fail(err); d.failed != nil {
		return nil, d.failed
	}
	return json.Marshal(dirCheckpoint{Version: 1, Manifest: e.manifest})
}

// save makes an epoch durable. The lock isn't held: to sync takes long.
func (d *Dir) save(e *dirEpoch) error {
	if err := d.manifest.writeSealed(); err != nil {
		return err
	}
	if err := d.sync(append(e.pending, ManifestName)); err != nil {
		return err
	}
	return d.claim.Check()
}

// Committed does nothing: in a directory a checkpoint is a length.
func (d *Dir) Committed(context.Context, []byte) error { return nil }

// Close lets go of the target without making anything durable.
func (d *Dir) Close() error {
	err := errors.Join(d.manifest.file.Close(), d.disk.close())
	d.claim.Release()
	return DiskError(err, "close the target %s", d.root)
}
