package target

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// Look opens a place in a bucket to read it: nothing is claimed or changed.
// file says that it is one object, as an index is. store is the socket of the
// store of objects.
func Look(ctx context.Context, address string, file bool, store string) (*Place, error) {
	l, err := objects.Parse(address)
	if err != nil {
		return nil, err
	}
	p := &Place{name: l.Target, books: Books + "/"}
	if file {
		up, object := l.Up()
		l, p.books = up, p.books+object+"/"
	}
	if p.bucket, err = objects.Dial(store, l); err != nil {
		return nil, err
	}
	p.bucket.Patience = min(p.bucket.Patience, openPatience)
	if err := p.bucket.Check(ctx); err != nil {
		p.bucket.Close()
		return nil, err
	}
	return p, nil
}

// Marked returns the id of the pipeline and the name of the sink that the
// place's marker names; both are empty when there is no marker.
func (p *Place) Marked(ctx context.Context) (pipeline, sink string, err error) {
	m, err := p.marker(ctx)
	if m == nil || err != nil {
		return "", "", err
	}
	return m.Pipeline, m.Sink, nil
}

// ManifestLines returns the lines of the parts of a manifest, those too that
// aren't rows. Offsets are those of the parts put together. The error ends the
// sequence; it is ErrMissing where a part isn't there.
func (p *Place) ManifestLines(ctx context.Context, parts []Part) iter.Seq2[ManifestLine, error] {
	return func(yield func(ManifestLine, error) bool) {
		r := readParts(ctx, p.bucket, p.books, manifestStem, parts)
		defer r.Close()
		eachManifestLine(bufio.NewReaderSize(r, 256<<10), "read the manifest of "+p.name, 0, yield)
	}
}

// ManifestRow returns the row that stands at an offset of the parts of a
// manifest put together.
func (p *Place) ManifestRow(ctx context.Context, parts []Part, offset int64) (Row, error) {
	for _, x := range parts {
		if offset >= x.Octets {
			offset -= x.Octets
			continue
		}
		r, _, err := p.bucket.Open(ctx, p.books+PartName(manifestStem, x), offset)
		if err != nil {
			return Row{}, err
		}
		defer r.Close()
		text, err := readLine(bufio.NewReader(io.LimitReader(r, maxRow)))
		if err != nil {
			return Row{}, fault.Wrap(fault.Unavailable, err, "read the manifest of %s", p.name)
		}
		return parseRow(text)
	}
	return Row{}, fault.New(fault.Bug, "the manifest of %s has no octet %d", p.name, offset)
}

// ManifestParts returns the parts of the manifest as the place itself says
// them: for who has no ledger. ErrMissing when it doesn't say.
func (p *Place) ManifestParts(ctx context.Context) ([]Part, error) {
	b, err := p.Read(ctx, manifestStem+".json")
	if err != nil {
		return nil, err
	}
	var f partsFile
	if err := json.Unmarshal(b, &f); err != nil || f.Version != 1 {
		return nil, fault.New(fault.Config, "%s of %s can't be read: %w", manifestStem+".json", p.name, errors.Join(err, fmt.Errorf("it is of version %d", f.Version)))
	}
	return f.Parts, nil
}

// Object is an object of a place, in a listing.
type Object struct {
	Name string // relative to the place
	Size int64  // octets
}

// Objects returns what is in the place but for its books and those of others,
// in the order of the names. The error ends the sequence.
func (p *Place) Objects(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for l, err := range p.bucket.List(ctx, "", false) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			if !inBooks(l.Key) && !yield(Object{l.Key, l.Size}, nil) {
				return
			}
		}
	}
}

func inBooks(key string) bool {
	const mark = Books + "/"
	for i := 0; i+len(mark) <= len(key); i++ {
		if key[i:i+len(mark)] == mark && (i == 0 || key[i-1] == '/') {
			return true
		}
	}
	return false
}
