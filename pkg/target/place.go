package target

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// openPatience is how long opening a target goes on where its server isn't to
// be reached: somebody waits, and nothing is lost yet.
const openPatience = 30 * time.Second

// Place is a place in a bucket that is ours: marked. Object storage has no
// locks that end with their holder, so that, other than in a directory,
// nothing tells two runs of one pipeline apart here: the ledger's lock does.
type Place struct {
	Adopted bool // there was something, now or earlier, and the user let us take it over

	bucket *objects.Bucket
	name   string // for people
	books  string // "/" at its end, relative to the bucket's place
	spool  *message.Spool
	fence  Fence // not zero: others write here too
}

// TakeObjects claims a place in a bucket whose address is path. file says that
// it is one object, as an index is: its books lie beside it, as those of a
// file do. Errors are of class Config (it isn't ours, or isn't there), Auth,
// Unavailable or Throttled.
func TakeObjects(ctx context.Context, address string, file bool, o Owner) (*Place, error) {
	l, err := objects.Parse(address)
	if err != nil {
		return nil, err
	}
	p := &Place{name: l.Target, books: Books + "/", spool: o.Spool, fence: o.Fence}
	object := ""
	if file {
		l, object = l.Up()
		if object == "/" || object == "." {
			return nil, fault.New(fault.Config, "%s names no object in the bucket", p.name).WithHint("write %s/index.jsonl", p.name).WithKey("path")
		}
		p.books += object + "/"
	}
	if p.bucket, err = objects.Dial(o.Store, l); err != nil {
		return nil, err
	}
	patience := p.bucket.Patience
	p.bucket.Patience = min(patience, openPatience)
	if err := p.take(ctx, object, o); err != nil {
		p.bucket.Close()
		return nil, err
	}
	p.bucket.Patience = patience
	return p, nil
}

func (p *Place) take(ctx context.Context, object string, o Owner) error {
	at := p.bucket.Location().Target + "/" + p.books + markerName
	read := func() (*marker, error) { return p.marker(ctx) }
	occupied := func() (string, error) { return p.occupant(ctx, object) }
	var found *marker
	var err error
	if !p.fence.zero() { // a session for each task: where the marker is, the bucket is
		found, err = read()
	}
	if found == nil && err == nil {
		if err = p.bucket.Check(ctx); err == nil { // a missing object can't be told from a missing bucket everywhere
			found, err = read()
		}
	}
	if err != nil {
		return err
	}
	mark, adopted, err := check(p.name, at, o, func() (*marker, error) { return found, nil }, occupied)
	if err != nil && found == nil {
		// Another session of ours may have marked it just now, and what
		// stands here may be its first files.
		if again, rerr := read(); again != nil || rerr != nil {
			found = again
			mark, adopted, err = check(p.name, at, o, read, occupied)
		}
	}
	if err != nil {
		return err
	}
	p.Adopted = adopted
	if !mark {
		return nil
	}
	b, err := newMarker(o, adopted)
	if err != nil {
		return err
	}
	// Where there was no marker, there must be none still: of two pipelines
	// that come at once, the server lets one write.
	err = p.Write(ctx, markerName, b, found == nil)
	if errors.Is(err, objects.ErrUnconditional) {
		err = p.Write(ctx, markerName, b, false)
	}
	if err != nil && !errors.Is(err, objects.ErrThere) {
		return err
	}
	// What stands there now decides, also on a server that doesn't know the
	// condition and took both.
	_, _, err = check(p.name, at, Owner{Sink: o.Sink, Pipeline: o.Pipeline, Known: true}, read, occupied)
	return err
}

// marker returns nil when there is none.
func (p *Place) marker(ctx context.Context) (*marker, error) {
	b, err := p.bucket.Read(ctx, p.books+markerName)
	if errors.Is(err, objects.ErrMissing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseMarker(b, p.bucket.Location().Target+"/"+p.books+markerName)
}

// occupant names something that is in the place and isn't a sink's.
func (p *Place) occupant(ctx context.Context, object string) (string, error) {
	if object != "" {
		_, err := p.bucket.Stat(ctx, object)
		if errors.Is(err, objects.ErrMissing) {
			return "", nil
		}
		return "an object of that name", err
	}
	for l, err := range p.bucket.List(ctx, "", true) {
		if err != nil {
			return "", err
		}
		name := strings.TrimSuffix(l.Key, "/")
		if name == Books || name == "" {
			continue
		}
		_, err := p.bucket.Stat(ctx, path.Join(Books, name, markerName))
		if errors.Is(err, objects.ErrMissing) {
			return l.Key, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

// Close lets go of the connections. The marker stays.
func (p *Place) Close() { p.bucket.Close() }

// Name returns the place as people know it.
func (p *Place) Name() string { return p.name }

// ErrMissing is that there is no such object, to be told with errors.Is.
var ErrMissing = objects.ErrMissing

// Write puts a small object into the books, whole or not at all; fresh: only
// where there is none.
func (p *Place) Write(ctx context.Context, name string, b []byte, fresh bool) error {
	return p.bucket.Put(ctx, p.books+name, bytes.NewReader(b), int64(len(b)), objects.PutOptions{New: fresh, ContentType: contentType(name)})
}

// Read returns a small object of the books; ErrMissing when there is none.
func (p *Place) Read(ctx context.Context, name string) ([]byte, error) {
	return p.bucket.Read(ctx, p.books+name)
}

// Publish puts an object beside the books, whole or not at all, in place of
// what may be there, and notes meta with it. body may be read several times.
func (p *Place) Publish(ctx context.Context, name string, body io.ReaderAt, size int64, meta map[string]string) error {
	return p.bucket.Put(ctx, name, body, size, objects.PutOptions{ContentType: contentType(name), Meta: meta})
}

// Published returns the octets of an object beside the books, its size and
// what was noted with it; ErrMissing when there is none.
func (p *Place) Published(ctx context.Context, name string) (body io.ReadCloser, size int64, meta map[string]string, err error) {
	r, i, err := p.bucket.Open(ctx, name, 0)
	return r, i.Size, i.Meta, err
}

// Noted returns the size of an object beside the books, and what was noted
// with it; ErrMissing when there is none.
func (p *Place) Noted(ctx context.Context, name string) (size int64, meta map[string]string, err error) {
	i, err := p.bucket.Stat(ctx, name)
	return i.Size, i.Meta, err
}

// Remove removes an object beside the books, when it is there.
func (p *Place) Remove(ctx context.Context, name string) error { return p.bucket.Delete(ctx, name) }

// SetAside copies an object from beside the books into them, where it stays:
// what must be taken out of use but may still be worth something to its owner.
// It has another number each time.
func (p *Place) SetAside(ctx context.Context, name, aside string) error {
	r, i, err := p.bucket.Open(ctx, name, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	if aside, err = p.free(ctx, aside); err != nil {
		return err
	}
	return p.copyTo(ctx, p.books+aside, i.Size, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// contentType returns the media type of an object by its name: what a browser
// or another program is told of it.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".eml":
		return "message/rfc822"
	case ".msg":
		return "application/vnd.ms-outlook"
	case ".json":
		return "application/json"
	case ".jsonl":
		return "application/x-ndjson"
	case ".pdf":
		return "application/pdf"
	}
	return "application/octet-stream"
}

// partsFile says which parts of a list count, for who has no ledger.
type partsFile struct {
	Version int    `json:"version"`
	Parts   []Part `json:"parts"`
}

func marshalParts(list []Part) ([]byte, error) {
	b, err := json.Marshal(partsFile{Version: 1, Parts: list})
	return append(b, '\n'), err
}
