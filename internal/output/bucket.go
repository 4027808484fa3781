package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

// bucket is a target in a bucket.
type bucket struct {
	place *target.Place

	read   []target.Part // the parts of the manifest that Lines has read
	starts []int64       // of each, by the octets that they have
	whole  []target.Part // of them, those that end with a line, with the octets that they have
}

// missing makes of what a bucket says what a file system says.
func missing(err error) error {
	if errors.Is(err, target.ErrMissing) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func (b *bucket) Present(ctx context.Context) (bool, error) {
	for _, list := range []iter.Seq2[target.Object, error]{b.place.Objects(ctx), b.place.Kept(ctx)} {
		for _, err := range list {
			return err == nil, err
		}
	}
	return false, nil
}

func (b *bucket) Marked(ctx context.Context) (pipeline, sink string, err error) {
	return b.place.Marked(ctx)
}

func (b *bucket) Knows(checkpoint []byte) bool {
	_, ok := target.CommittedParts(checkpoint)
	return ok
}

// parts returns the parts of the manifest that count.
func (b *bucket) parts(ctx context.Context, checkpoint []byte) ([]target.Part, error) {
	if checkpoint != nil {
		list, ok := target.CommittedParts(checkpoint)
		if !ok {
			return nil, fault.New(fault.Bug, "the checkpoint %q of a target in a bucket can't be read", checkpoint)
		}
		return list, nil
	}
	list, err := b.place.ManifestParts(ctx)
	return list, missing(err)
}

// Lines reads each part by itself: what is wrong with one is no other's.
func (b *bucket) Lines(ctx context.Context, checkpoint []byte) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		list, err := b.parts(ctx, checkpoint)
		if err != nil {
			yield(Line{}, err)
			return
		}
		b.read, b.starts, b.whole = nil, nil, nil
		start := int64(0)
		for _, x := range list {
			in, size, err := b.place.Part(ctx, target.ManifestStem, x, 0)
			if err != nil {
				if errors.Is(err, target.ErrMissing) && len(list) > 1 {
					continue // which Rest tells of; but where there is nothing, there is no manifest
				}
				yield(Line{}, missing(err))
				return
			}
			b.read, b.starts = append(b.read, x), append(b.starts, start)
			if checkpoint == nil {
				ends, err := endsLine(ctx, b.place, target.ManifestStem, x, size)
				if err != nil || !ends {
					in.Close()
					cut := Line{ManifestLine: target.ManifestLine{Err: errors.New("it is cut short"), Offset: start, End: start + size}}
					if !yield(cut, err) || err != nil {
						return
					}
					start += size
					continue
				}
			}
			y := x
			y.Octets = size
			b.whole = append(b.whole, y)
			end := int64(math.MaxInt64)
			if checkpoint != nil {
				end = start + x.Octets
			}
			for l, err := range target.LinesOf(in, "read "+b.Manifest(), start) {
				if !yield(Line{l, l.Offset >= end}, err) || err != nil {
					in.Close()
					return
				}
			}
			in.Close()
			start += size
		}
		if len(b.read) == 0 && len(list) > 0 {
			yield(Line{}, fmt.Errorf("%s: none of its parts is there: %w", b.Manifest(), fs.ErrNotExist))
		}
	}
}

// endsLine reports whether a part ends with a line end: what is put behind one
// that doesn't would be lost with its last line.
func endsLine(ctx context.Context, p *target.Place, stem string, x target.Part, size int64) (bool, error) {
	if size == 0 {
		return true, nil
	}
	in, _, err := p.Part(ctx, stem, x, size-1)
	if err != nil {
		return false, missing(err)
	}
	defer in.Close()
	var last [1]byte
	if _, err := io.ReadFull(in, last[:]); err != nil {
		return false, err
	}
	return last[0] == '\n', nil
}

func (b *bucket) Whole() ([]byte, error) { return target.ObjectsCheckpoint(b.whole) }

func (b *bucket) Row(ctx context.Context, offset int64) (target.Row, error) {
	n := sort.Search(len(b.starts), func(i int) bool { return b.starts[i] > offset }) - 1
	if n < 0 {
		return target.Row{}, fault.New(fault.Bug, "the manifest of %s has no octet %d", b.place.Name(), offset)
	}
	in, _, err := b.place.Part(ctx, target.ManifestStem, b.read[n], offset-b.starts[n])
	if err != nil {
		return target.Row{}, missing(err)
	}
	defer in.Close()
	return target.RowOf(in)
}

func (b *bucket) Manifest() string { return b.Path(target.Books + "/" + target.ManifestStem) }

// Rest tells of parts of the manifest that aren't there, of those that don't
// count, of the list of them, which isn't the ledger's, and of uploads that
// were never ended.
func (b *bucket) Rest(ctx context.Context, checkpoint []byte) ([]Flaw, error) {
	parts, err := b.parts(ctx, checkpoint)
	if err != nil {
		return nil, err
	}
	kept := map[string]bool{}
	for o, err := range b.place.Kept(ctx) {
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(o.Name, target.ManifestStem+"-") {
			kept[o.Name] = true
		}
	}
	var out []Flaw
	gone := 0
	for _, x := range parts {
		name := target.PartName(target.ManifestStem, x)
		if !kept[name] {
			out = append(out, Flaw{Missing: true, Part: true, Name: path.Join(target.Books, name), Text: "a part of the manifest isn't there"})
			gone++
		}
		delete(kept, name)
	}
	if gone == len(parts) && gone > 0 {
		out = nil // there is no manifest, which Lines has told
	}
	for name := range kept {
		out = append(out, Flaw{Part: true, Name: path.Join(target.Books, name), Text: "a part of the manifest is none of those that the ledger committed"})
	}
	listed, err := b.place.ManifestParts(ctx)
	at := Flaw{Name: path.Join(target.Books, target.ManifestStem+".json")}
	switch {
	case gone == len(parts): // or there are none: it tells nothing that could be lost
	case errors.Is(err, target.ErrMissing):
		at.Missing, at.Text = true, "the list of the manifest's parts isn't there: a lost ledger couldn't be made anew"
		out = append(out, at)
	case fault.Is(err, fault.Config):
		at.Text = err.Error()
		out = append(out, at)
	case err != nil:
		return nil, err
	case !slices.Equal(listed, parts):
		at.Text = "the list of the manifest's parts isn't the one that the ledger committed"
		out = append(out, at)
	}
	for name, err := range b.place.Unfinished(ctx) {
		if fault.Is(err, fault.Auth) || fault.Is(err, fault.Config) {
			break // the server doesn't tell, or not us
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Flaw{Upload: true, Name: name, Text: "an upload of it was begun and never ended: it takes up room"})
	}
	slices.SortFunc(out, func(a, b Flaw) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (b *bucket) All(ctx context.Context) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		for o, err := range b.place.Objects(ctx) {
			if !yield(File{o.Name, o.Size}, err) || err != nil {
				return
			}
		}
	}
}

func (b *bucket) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	in, size, err := b.place.Content(ctx, name, 0)
	return in, size, missing(err)
}

func (b *bucket) Path(name string) string { return b.place.Name() + "/" + name }

// AtOnce hides the round trips, as when they were uploaded.
func (b *bucket) AtOnce() int { return 64 }

func (b *bucket) Close() { b.place.Close() }
