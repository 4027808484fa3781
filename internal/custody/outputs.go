package custody

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/output"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
)

// outputs are the files that the sinks keep, with their sha256.
type outputs struct {
	places
	files sums
	buf   []byte
}

// collect finds what all sinks of a plan keep. Of files it takes the hash that
// their sink took of the octets as it wrote them; an index is read now.
func collect(ctx context.Context, folder string, p *plan.Plan, l *ledger.Ledger, store func() (string, error)) (*outputs, error) {
	o := &outputs{places: places{folder: folder, store: store}, files: sums{}, buf: make([]byte, 256<<10)}
	for i := range p.Sinks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s := &p.Sinks[i]
		t, err := l.Target(ctx, s.Name, s.Prepared.Target)
		if err != nil {
			return nil, err
		}
		out := Sink{Name: s.Name, Plugin: s.Plugin, Target: s.Prepared.Target, Address: s.Address}
		if s.When != nil {
			out.When = s.When.Text()
		}
		o.sinks = append(o.sinks, out)
		at := &o.sinks[len(o.sinks)-1]
		switch {
		case t.Checkpoint == nil:
			at.Note = "nothing was written yet"
		case !s.Prepared.Record:
			err = o.directory(ctx, at, t.Checkpoint)
		case s.Address != "":
			err = o.object(ctx, at, t.Checkpoint)
		default:
			err = o.file(at)
		}
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

// name returns a path as it stands in manifests.
func (o *outputs) name(path string) (string, error) {
	rel, err := filepath.Rel(o.folder, path)
	return filepath.ToSlash(rel), err
}

// directory adds the files of a target of files, up to what is committed.
func (o *outputs) directory(ctx context.Context, s *Sink, checkpoint []byte) error {
	at, err := output.Open(ctx, s.Target, s.Address, o.store)
	if err != nil {
		return err
	}
	defer at.Close()
	if !at.Knows(checkpoint) {
		s.Note = noManifest
		return nil
	}
	type kept struct {
		path, sum string
		size      int64
	}
	files := map[message.ID]kept{}
	for l, err := range at.Lines(ctx, checkpoint) {
		if errors.Is(err, fs.ErrNotExist) {
			s.Note = "its manifest isn't there"
			return nil
		}
		if err != nil {
			return err
		}
		if l.Behind {
			continue
		}
		if l.Err != nil {
			s.Note = "its manifest has lines that can't be read: see pipeline verify"
			continue
		}
		files[l.Row.ID] = kept{l.Row.Path, l.Row.SHA256, l.Row.Size} // the later row counts
	}
	for _, f := range files {
		name := at.Path(f.path)
		if s.Address == "" {
			if name, err = o.name(name); err != nil {
				return err
			}
		}
		if _, twice := o.files[name]; !twice {
			s.Files++
			s.Octets += f.size
		}
		o.files[name] = f.sum
	}
	return nil
}

const noManifest = "it keeps no manifest that is known here"

// object adds an index in a bucket.
func (o *outputs) object(ctx context.Context, s *Sink, checkpoint []byte) error {
	x, err := output.OpenIndex(ctx, s.Address, o.store)
	if err != nil {
		return err
	}
	defer x.Close()
	point, ok := output.ParseIndexPoint(checkpoint)
	if !ok {
		s.Note = noManifest
		return nil
	}
	state, err := x.At(ctx, point)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Note = "it isn't there"
		return nil
	case err != nil:
		return err
	case len(state.Point.Lines)+len(state.Point.Pending) > 0:
		s.Note = "it isn't whole yet: the next run puts its parts together"
		return nil
	}
	h := newHash("sha256")
	if s.Octets, err = o.hash(ctx, s.Target, o.buf, h); err != nil {
		return err
	}
	s.Files, o.files[s.Target] = 1, hexOf(h)
	return nil
}

// file adds a target that is one file.
func (o *outputs) file(s *Sink) error {
	if info, err := os.Stat(s.Target); err != nil || !info.Mode().IsRegular() {
		s.Note = noManifest
		return nil //nolint:nilerr // the record says so
	}
	h := newHash("sha256")
	name, err := o.name(s.Target)
	if err != nil {
		return err
	}
	size, err := o.hash(context.Background(), name, o.buf, h)
	if err != nil {
		return target.DiskError(err, "read %s", s.Target)
	}
	o.files[name] = hexOf(h)
	s.Files, s.Octets = 1, size
	return nil
}
