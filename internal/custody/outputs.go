package custody

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
)

// outputs are the files that the sinks keep, with their sha256.
type outputs struct {
	folder string // of the custody, absolute
	files  sums
	sinks  []Sink
	buf    []byte
}

// collect finds what all sinks of a plan keep. Of files it takes the hash that
// their sink took of the octets as it wrote them; an index is read now.
func collect(ctx context.Context, folder string, p *plan.Plan, l *ledger.Ledger) (*outputs, error) {
	o := &outputs{folder: folder, files: sums{}, buf: make([]byte, 256<<10)}
	for i := range p.Sinks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s := &p.Sinks[i]
		t, err := l.Target(ctx, s.Name, s.Prepared.Target)
		if err != nil {
			return nil, err
		}
		out := Sink{Name: s.Name, Plugin: s.Plugin, Target: s.Prepared.Target}
		if s.When != nil {
			out.When = s.When.Text()
		}
		committed, ours := target.CommittedManifest(t.Checkpoint)
		switch {
		case t.Checkpoint == nil:
			out.Note = "nothing was written yet"
		case s.Address != "":
			out.Note = "it is in object storage: its files aren't part of this record"
		case ours:
			err = o.directory(&out, committed)
		default:
			err = o.file(&out)
		}
		if err != nil {
			return nil, err
		}
		o.sinks = append(o.sinks, out)
	}
	return o, nil
}

// name returns a path as it stands in manifests.
func (o *outputs) name(path string) (string, error) {
	rel, err := filepath.Rel(o.folder, path)
	return filepath.ToSlash(rel), err
}

// directory adds the files of a directory target, up to what is committed.
func (o *outputs) directory(s *Sink, committed int64) error {
	type kept struct {
		path, sum string
		size      int64
	}
	files := map[message.ID]kept{}
	for l, err := range target.ManifestLines(s.Target) {
		if errors.Is(err, fs.ErrNotExist) {
			s.Note = "its manifest isn't there"
			return nil
		}
		if err != nil {
			return err
		}
		if l.Offset >= committed {
			break
		}
		if l.Err != nil {
			s.Note = "its manifest has lines that can't be read: see pipeline verify"
			continue
		}
		files[l.Row.ID] = kept{l.Row.Path, l.Row.SHA256, l.Row.Size} // the later row counts
	}
	for _, f := range files {
		name, err := o.name(filepath.Join(s.Target, filepath.FromSlash(f.path)))
		if err != nil {
			return err
		}
		if _, twice := o.files[name]; !twice {
			s.Files++
			s.Octets += f.size
		}
		o.files[name] = f.sum
	}
	return nil
}

// file adds a target that is one file.
func (o *outputs) file(s *Sink) error {
	if info, err := os.Stat(s.Target); err != nil || !info.Mode().IsRegular() {
		s.Note = "it keeps no manifest that is known here"
		return nil //nolint:nilerr // the record says so
	}
	h := newHash("sha256")
	size, err := hashFile(s.Target, o.buf, h)
	if err != nil {
		return target.DiskError(err, "read %s", s.Target)
	}
	name, err := o.name(s.Target)
	if err != nil {
		return err
	}
	o.files[name] = hexOf(h)
	s.Files, s.Octets = 1, size
	return nil
}
