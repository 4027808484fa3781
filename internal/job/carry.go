package job

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

// carried is what stands first in an exported state.
type carried struct {
	Version  int       `json:"version"`
	Name     string    `json:"name"`     // of the pipeline
	Pipeline string    `json:"pipeline"` // its id, as in the targets' markers
	Made     time.Time `json:"made"`
	Size     int64     `json:"size"`   // of the ledger
	SHA256   string    `json:"sha256"` // of the ledger
}

const (
	carriedName = "state.json"
	ledgerName  = "ledger.db"
	maxCarried  = 1 << 16
)

// ExportState writes the ledger to one file, to be carried to another machine.
// Stored secrets aren't in it (I9). The ledger must be open.
func (j *Job) ExportState(ctx context.Context, path string, now time.Time) (err error) {
	dir, err := os.MkdirTemp(j.File.State, ".export")
	if err != nil {
		return target.DiskError(err, "make room for a copy of the ledger")
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, ledgerName)
	if err := j.ledger.CopyTo(ctx, copied); err != nil {
		return err
	}
	info, err := os.Stat(copied)
	if err != nil {
		return target.DiskError(err, "look at the copy of the ledger")
	}
	sum, err := HashFile(copied)
	if err != nil {
		return err
	}
	head, err := json.Marshal(carried{1, j.File.Name, j.ledger.Pipeline(), now.UTC().Truncate(time.Second), info.Size(), sum})
	if err != nil {
		return fault.Wrap(fault.Bug, err, "describe the state")
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Config, "%s is there already", path).WithHint("name a new file")
	}
	if err != nil {
		return target.DiskError(err, "write %s", path)
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = target.DiskError(cerr, "write %s", path)
		}
		if err != nil {
			os.Remove(path)
		}
	}()
	z := gzip.NewWriter(out)
	t := tar.NewWriter(z)
	db, err := os.Open(copied)
	if err != nil {
		return target.DiskError(err, "read the copy of the ledger")
	}
	defer db.Close()
	err = t.WriteHeader(&tar.Header{Name: carriedName, Mode: 0o600, Size: int64(len(head)), ModTime: now})
	if err == nil {
		_, err = t.Write(head)
	}
	if err == nil {
		err = t.WriteHeader(&tar.Header{Name: ledgerName, Mode: 0o600, Size: info.Size(), ModTime: now})
	}
	if err == nil {
		_, err = io.Copy(t, db)
	}
	for _, f := range []func() error{t.Close, z.Close, out.Sync} {
		if err == nil {
			err = f()
		}
	}
	return target.DiskError(err, "write %s", path)
}

// Moved is a sink whose target is elsewhere than where the state comes from.
type Moved struct {
	Sink, From, To string
	There          bool // the output is there, with the pipeline's marker
}

// ImportState puts an exported state in place, whole or not at all, where no
// ledger is. Sinks are known by their names: what each wrote is looked for
// where the file says that it writes now. The ledger must not be open; a plan
// must be made.
func (j *Job) ImportState(ctx context.Context, path string) ([]Moved, error) {
	final := filepath.Join(j.File.State, j.File.Name+".db")
	if _, err := os.Stat(final); err == nil {
		return nil, fault.New(fault.Config, "there is a ledger: %s", final).WithKey("state").
			WithHint("move it away first; importing would forget what it knows")
	}
	if err := ledger.MakeDir(j.File.State); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(j.File.State, ".import")
	if err != nil {
		return nil, target.DiskError(err, "make room for the ledger")
	}
	defer os.RemoveAll(dir)
	if err := unpackState(path, filepath.Join(dir, "draft.db"), j.File.Name); err != nil {
		return nil, err
	}
	l, err := ledger.Open(ctx, dir, "draft")
	if err != nil {
		return nil, err
	}
	moved, err := j.moveTargets(ctx, l)
	if err = errors.Join(err, l.Close()); err != nil {
		return nil, err
	}
	// A link fails where a rename would write over a ledger that a run made
	// meanwhile.
	if err := os.Link(filepath.Join(dir, "draft.db"), final); err != nil {
		return nil, target.DiskError(err, "put the ledger %s in place", final)
	}
	return moved, target.DiskError(target.SyncDir(j.File.State), "make the ledger %s durable", final)
}

func (j *Job) moveTargets(ctx context.Context, l *ledger.Ledger) ([]Moved, error) {
	var out []Moved
	for i := range j.Plan.Sinks {
		s := &j.Plan.Sinks[i]
		to := s.Prepared.Target
		from, err := l.Move(ctx, s.Name, to)
		if err != nil {
			return nil, err
		}
		books := filepath.Join(to, target.Books)
		if s.Prepared.Record {
			books = filepath.Join(filepath.Dir(to), target.Books, filepath.Base(to))
		}
		pipeline, _, err := target.Marked(books)
		if s.Address != "" {
			var m Marked
			if m, err = j.Reach(ctx, s); err != nil {
				return nil, err
			}
			pipeline = m.Pipeline
		}
		out = append(out, Moved{s.Name, from, to, err == nil && pipeline == l.Pipeline()})
	}
	return out, nil
}

// unpackState writes the ledger of an exported state to a file, and checks it.
func unpackState(path, to, name string) error {
	broken := func(err error) error {
		return fault.New(fault.Config, "%s is no exported state, or a broken one: %w", path, err).WithHint("export it again: pipeline state export FILE")
	}
	f, err := os.Open(path)
	if err != nil {
		return fault.Wrap(fault.Config, err, "read the exported state")
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return broken(err)
	}
	t := tar.NewReader(z)
	h, err := t.Next()
	if err != nil || h.Name != carriedName {
		return broken(errors.Join(err, errors.New("it doesn't say what it is")))
	}
	var c carried
	if err := json.NewDecoder(io.LimitReader(t, maxCarried)).Decode(&c); err != nil {
		return broken(err)
	}
	if c.Version != 1 {
		return fault.New(fault.Config, "%s is of version %d; this program knows 1", path, c.Version).WithHint("use the newer program that wrote it")
	}
	if c.Name != name {
		return fault.New(fault.Config, "%s is the state of the pipeline %q, the file's is %q", path, c.Name, name).WithKey("name").
			WithHint("import it beside the file that it belongs to")
	}
	if h, err = t.Next(); err != nil || h.Name != ledgerName {
		return broken(errors.Join(err, errors.New("there is no ledger in it")))
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return target.DiskError(err, "write %s", to)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(t, c.Size+1))
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return broken(err)
	}
	if n != c.Size || hex.EncodeToString(sum.Sum(nil)) != c.SHA256 {
		return broken(fmt.Errorf("its ledger has %d octets, or others than the %d that were exported", n, c.Size))
	}
	return nil
}
