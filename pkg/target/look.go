package target

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

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
	patience := p.bucket.Patience
	p.bucket.Patience = min(patience, openPatience)
	if err := p.bucket.Check(ctx); err != nil {
		p.bucket.Close()
		return nil, err
	}
	p.bucket.Patience = patience
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

// LinesOf returns the lines of a manifest, or of a part of one, those too that
// aren't rows. Offsets begin with the one that is given; an error of reading is
// told as what was tried, and ends the sequence.
func LinesOf(r io.Reader, what string, offset int64) iter.Seq2[ManifestLine, error] {
	return func(yield func(ManifestLine, error) bool) {
		eachManifestLine(bufio.NewReaderSize(r, 256<<10), what, offset, yield)
	}
}

// RowOf returns the row that r begins with.
func RowOf(r io.Reader) (Row, error) {
	text, err := readLine(bufio.NewReader(io.LimitReader(r, maxRow)))
	if err != nil {
		return Row{}, err
	}
	return parseRow(text)
}

// Part returns the octets of a part of a list from an offset on, and how many
// the whole part has, be they as many as it says or not; ErrMissing when it
// isn't there.
func (p *Place) Part(ctx context.Context, stem string, x Part, offset int64) (io.ReadCloser, int64, error) {
	return p.bucket.Content(ctx, p.books+PartName(stem, x), offset)
}

// ManifestStem is how the names of a manifest's parts begin.
const ManifestStem = manifestStem

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

// Content returns the octets of an object beside the books from an offset on,
// and how many the whole object has; ErrMissing when there is none. It takes
// one request.
func (p *Place) Content(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	return p.bucket.Content(ctx, name, offset)
}

// Unfinished returns the objects of the place whose upload was begun and never
// ended, as far as the server tells: they can't be read, and take up room.
func (p *Place) Unfinished(ctx context.Context) iter.Seq2[string, error] {
	return p.bucket.Unfinished(ctx, "")
}

// Kept returns what is in the books, in the order of the names. The error ends
// the sequence.
func (p *Place) Kept(ctx context.Context) iter.Seq2[Object, error] {
	return p.list(ctx, p.books, func(string) bool { return true })
}

// Object is an object of a place, in a listing.
type Object struct {
	Name string // relative to the place
	Size int64  // octets
}

// Objects returns what is in the place but for its books and those of others,
// in the order of the names. The error ends the sequence.
func (p *Place) Objects(ctx context.Context) iter.Seq2[Object, error] {
	return p.list(ctx, "", func(key string) bool { return !inBooks(key) })
}

// list returns the objects below a prefix that are wanted, by their names
// behind it. Keys that end in "/" stand for folders in some programs.
func (p *Place) list(ctx context.Context, prefix string, wanted func(string) bool) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for l, err := range p.bucket.List(ctx, prefix, false) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			folder := l.Size == 0 && strings.HasSuffix(l.Key, "/")
			if !folder && wanted(l.Key) && !yield(Object{strings.TrimPrefix(l.Key, prefix), l.Size}, nil) {
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
