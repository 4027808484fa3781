package target

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// Objects is a target of files in a bucket. A file is uploaded when it has its
// name, many at once: Place returns before it is there, Flush when all are. An
// object appears whole or not at all, so that nothing has a temporary name.
type Objects struct {
	at       *Place
	spool    *message.Spool
	manifest *Parts
	free     sync.Pool // of *File
	stop     context.CancelFunc
	ctx      context.Context

	queue   chan *upload
	started sync.Once
	running sync.WaitGroup // the uploaders

	books sync.Mutex // of the manifest; where both are held, it was taken before mu

	mu     sync.Mutex
	epoch  *objectsEpoch // that is being written
	sealed *objectsEpoch // waits for its Flush; else nil
	turned int           // away: refused in all
	taken  int           // uploaded in all
	failed error         // of an upload: what it didn't save must not be promised

	owned func() error // notes whose fence it is, once
}

// objectsEpoch is what one Flush waits for. But for pending it is guarded by
// Objects.mu.
type objectsEpoch struct {
	pending sync.WaitGroup // uploads
	rows    []byte         // of the manifest
	refused []refusal
	changed bool
}

const (
	// uploads is how many objects are uploaded at once: a small one takes a
	// round trip, and 64 of them hide 20 ms of it as far as a machine's own
	// work allows (docs/adr/0014-object-storage.md).
	uploads = 64
	// fencedUploads are those of one task of several that a worker runs at
	// once: together they have about as many. A task has one connection to its
	// server, which brings no more in a round trip.
	fencedUploads = 16
	// heldOctets is up to where a file is in memory until it is uploaded, with
	// uploads at once 16 MiB of them (I5).
	heldOctets = 256 << 10
	// maxKey is the longest key that S3, Google and Azure all take, in octets
	// of UTF-8.
	maxKey = 1024
)

// upload is a file on its way.
type upload struct {
	file     *File
	epoch    *objectsEpoch
	id       message.ID
	name     string
	modified time.Time
}

// objectsCheckpoint is the token of a target in a bucket: the parts of the
// manifest that count.
type objectsCheckpoint struct {
	Version int    `json:"v"`
	Parts   []Part `json:"parts"`
}

// manifestStem is how the names of the manifest's parts begin.
const manifestStem = "manifest"

// CommittedParts returns the parts of the manifest that a checkpoint of a
// target in a bucket vouches for; ok is false for another sink's checkpoint.
func CommittedParts(checkpoint []byte) (parts []Part, ok bool) {
	var cp struct {
		Version int     `json:"v"`
		Parts   *[]Part `json:"parts"`
	}
	if json.Unmarshal(checkpoint, &cp) != nil || cp.Version != 1 || cp.Parts == nil {
		return nil, false
	}
	return *cp.Parts, true
}

// ObjectsCheckpoint returns the checkpoint of a target in a bucket whose
// manifest has those parts: for who makes a ledger anew from manifests.
func ObjectsCheckpoint(parts []Part) ([]byte, error) {
	if parts == nil {
		parts = []Part{}
	}
	return json.Marshal(objectsCheckpoint{Version: 1, Parts: parts})
}

// OpenObjects claims the place in a bucket at an address, and rolls its
// manifest back to the checkpoint that was committed last; nil: none was.
func OpenObjects(ctx context.Context, address string, o Owner, checkpoint []byte) (*Objects, error) {
	var parts []Part
	if checkpoint != nil {
		var ok bool
		if parts, ok = CommittedParts(checkpoint); !ok {
			return nil, fault.New(fault.Bug, "the checkpoint %q of a target in a bucket can't be read", checkpoint)
		}
	}
	p, err := TakeObjects(ctx, address, false, o)
	if err != nil {
		return nil, err
	}
	t := &Objects{at: p, spool: o.Spool, queue: make(chan *upload), epoch: &objectsEpoch{}}
	t.ctx, t.stop = context.WithCancel(context.WithoutCancel(ctx))
	t.owned = sync.OnceValue(func() error { return p.own(t.ctx) })
	if checkpoint == nil && p.Adopted && !o.Rewrite && o.Fence.zero() {
		err = p.SetAsideParts(ctx, manifestStem)
	}
	if err == nil {
		t.manifest, err = p.Parts(ctx, manifestStem, parts)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return t, nil
}

// SetAsideParts copies the parts of another ledger's list to an object that
// isn't removed, orphaned-STEM.jsonl in the books: that ledger may have been
// lost. What was set aside earlier stays too.
func (p *Place) SetAsideParts(ctx context.Context, stem string) error {
	var list []Part
	octets := int64(0)
	for o, err := range p.bucket.List(ctx, p.books+stem+"-", false) {
		if err != nil {
			return err
		}
		number, of, _ := strings.Cut(strings.TrimSuffix(o.Key[len(p.books)+len(stem)+1:], ".jsonl"), "-")
		var n int64
		if n, err = strconv.ParseInt(number, 10, 64); err == nil {
			list = append(list, Part{Number: n, Octets: o.Size, Of: of})
			octets += o.Size
		}
	}
	if len(list) == 0 {
		return nil
	}
	aside, err := p.free(ctx, "orphaned-"+stem+".jsonl")
	if err != nil {
		return err
	}
	return p.copyTo(ctx, p.books+aside, octets, func(w io.Writer) error {
		r := readParts(ctx, p.bucket, p.books, stem, list)
		defer r.Close()
		_, err := io.Copy(w, r)
		return err
	})
}

// free returns a name in the books that nothing has, made of the one that is
// wanted.
func (p *Place) free(ctx context.Context, name string) (string, error) {
	base, ext := strings.TrimSuffix(name, path.Ext(name)), path.Ext(name)
	for n := 2; ; n++ {
		_, err := p.bucket.Stat(ctx, p.books+name)
		if errors.Is(err, ErrMissing) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		name = base + "-" + strconv.Itoa(n) + ext
	}
}

// Create begins a file.
func (t *Objects) Create() (*File, error) {
	f, _ := t.free.Get().(*File)
	if f == nil {
		f = &File{in: t, sum: sha256.New()}
	}
	f.size, f.held, f.body = 0, f.held[:0], nil
	f.sum.Reset()
	return f, nil
}

// CreateFor begins a file that gets all octets of a body; see Dir.CreateFor.
func (t *Objects) CreateFor(b *message.Body) (*File, error) {
	f, err := t.Create()
	if err == nil && b.Summed() {
		f.body = b
	}
	return f, err
}

// Put stores a message's octets as they come under path; see Dir.Put.
func (t *Objects) Put(m *message.Message, path string) (int64, error) { return put(t, m, path) }

func (t *Objects) append(f *File, p []byte) error {
	if f.spool == nil && len(f.held)+len(p) <= heldOctets {
		f.held = append(f.held, p...)
		return nil
	}
	if f.spool == nil {
		file, err := t.spool.File()
		if err != nil {
			return err
		}
		f.spool = file
		if err := t.toSpool(f, f.held); err != nil {
			return err
		}
		f.held = f.held[:0]
	}
	return t.toSpool(f, p)
}

func (t *Objects) toSpool(f *File, p []byte) error {
	if err := t.spool.Take(int64(len(p))); err != nil {
		return err
	}
	if _, err := f.spool.Write(p); err != nil {
		t.spool.Give(int64(len(p)))
		return message.SpoolError(err)
	}
	return nil
}

func (t *Objects) discard(f *File) {
	if f.spool != nil {
		if at, err := f.spool.Seek(0, io.SeekCurrent); err == nil {
			t.spool.Give(at)
		}
		f.spool.Close() // it has no name: it is gone
		f.spool = nil
	}
	f.body = nil
	t.free.Put(f)
}

func (t *Objects) place(f *File, id message.ID, part, name string, modified time.Time) error {
	if !inside(name) {
		f.Discard()
		return fault.New(fault.Bug, "the name %q leaves the target %s", name, t.at.name)
	}
	if n := len(t.at.bucket.Location().Key(name)); n > maxKey {
		f.Discard()
		return fault.New(fault.Message, "write %s in the target %s: its key has %d octets, object storage takes %d", name, t.at.name, n, maxKey).
			WithReason("name_refused").WithHint("write with another name template or a smaller max_path")
	}
	if !t.at.fence.zero() {
		if err := t.fenced(name); err != nil {
			f.Discard()
			return err
		}
	}
	t.started.Do(t.start)
	sum, err := f.digest()
	if err != nil {
		f.Discard()
		return err
	}
	t.mu.Lock()
	e, err := t.epoch, t.failed
	if err == nil {
		e.rows = appendRow(e.rows, &id, part, name, f.size, &sum)
		e.changed = true
	}
	t.mu.Unlock()
	if err != nil {
		f.Discard()
		return err
	}
	e.pending.Add(1)
	t.queue <- &upload{file: f, epoch: e, id: id, name: name, modified: modified}
	return nil
}

// start starts the uploaders, before the first file.
func (t *Objects) start() {
	n := uploads
	if !t.at.fence.zero() {
		n = fencedUploads
	}
	for range n {
		t.running.Go(func() {
			for u := range t.queue {
				t.uploaded(u, t.upload(u))
				u.file.Discard()
				u.epoch.pending.Done()
			}
		})
	}
}

func (t *Objects) upload(u *upload) error {
	if t.ctx.Err() != nil {
		return nil //nolint:nilerr // why stands in failed
	}
	var body io.ReaderAt = bytes.NewReader(u.file.held)
	if u.file.spool != nil {
		body = u.file.spool
	}
	o := objects.PutOptions{ContentType: contentType(u.name)}
	if !u.modified.IsZero() {
		o.Meta = map[string]string{"mtime": strconv.FormatInt(u.modified.Unix(), 10)} // as rclone keeps it
	}
	err := t.at.bucket.Put(t.ctx, u.name, body, u.file.size, o)
	if errors.Is(err, objects.ErrFailed) && t.takesOthers() {
		brief := *t.at.bucket
		brief.Patience = min(brief.Patience, openPatience)
		if err = brief.Put(t.ctx, u.name, body, u.file.size, o); errors.Is(err, objects.ErrFailed) {
			err = onlyOn(err)
		}
	}
	if err != nil && t.ctx.Err() != nil {
		return nil //nolint:nilerr // as above
	}
	return err
}

// seal implements Seal: uploads of the epoch go on beside those of the next.
func (t *Objects) seal() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sealed != nil {
		return fault.New(fault.Bug, "the target %s was sealed twice without a Flush in between", t.at.name)
	}
	t.sealed, t.epoch = t.epoch, &objectsEpoch{}
	return t.failed
}

// Flush waits until everything that was placed is uploaded, puts the manifest
// behind it, and returns the checkpoint that covers it; after a Seal, everything
// that was placed before that, while other files are placed.
func (t *Objects) Flush(ctx context.Context) ([]byte, error) {
	t.mu.Lock()
	e := t.sealed
	if e == nil {
		e = t.epoch
	}
	t.mu.Unlock()
	e.pending.Wait()
	t.books.Lock()
	defer t.books.Unlock()
	refused, err := t.end(ctx, e)
	if err != nil {
		return nil, err
	}
	list := t.manifest.List()
	if e.changed {
		if list, err = t.enter(ctx, e.rows); err != nil {
			t.fail(err)
			return nil, err
		}
	}
	cp, err := ObjectsCheckpoint(list)
	if err == nil && len(refused) > 0 {
		err = refused
	}
	return cp, err
}

// end ends an epoch that is uploaded, and returns what the server refused of it.
func (t *Objects) end(ctx context.Context, e *objectsEpoch) (refused message.Refusals, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return nil, t.failed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if e == t.epoch {
		t.epoch = &objectsEpoch{}
	}
	t.sealed = nil
	refused, t.failed = t.takeRefused(e)
	return refused, t.failed
}

// enter puts rows into the manifest, and returns its parts. Where it fails rows
// may be lost that nobody will write again.
func (t *Objects) enter(ctx context.Context, rows []byte) ([]Part, error) {
	if err := t.manifest.Add(ctx, rows); err != nil {
		return nil, err
	}
	list, err := t.manifest.Flush(ctx)
	if err == nil && t.at.fence.zero() {
		err = t.at.writeParts(ctx, manifestStem, list)
	}
	return list, err
}

// fail notes what must not be promised any more.
func (t *Objects) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		t.failed = err
	}
}

// Committed removes what the checkpoint that the ledger has doesn't need any
// more.
func (t *Objects) Committed(ctx context.Context, checkpoint []byte) error {
	list, ok := CommittedParts(checkpoint)
	if !ok {
		return fault.New(fault.Bug, "the checkpoint %q of a target in a bucket can't be read", checkpoint)
	}
	t.books.Lock()
	defer t.books.Unlock()
	return t.manifest.Committed(ctx, list)
}

// Close lets go of the target without making anything durable.
func (t *Objects) Close() error {
	t.stop()
	t.started.Do(func() {}) // without a file there are no uploaders
	close(t.queue)
	t.running.Wait()
	t.at.Close()
	return nil
}

// writeParts says in an object of its own which parts of a list count: for who
// reads the bucket without the ledger.
func (p *Place) writeParts(ctx context.Context, stem string, list []Part) error {
	b, err := marshalParts(list)
	if err != nil {
		return fault.Wrap(fault.Bug, err, "describe the parts of the manifest")
	}
	return p.Write(ctx, stem+".json", b, false)
}
