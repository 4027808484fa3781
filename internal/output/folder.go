package output

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/mailhaul/pipeline/pkg/target"
)

// folder is a target in a folder.
type folder struct {
	root  string
	whole int64 // octets of the manifest that Lines has read, up to the end of a line
}

func (f *folder) Present(context.Context) (bool, error) {
	_, err := os.Stat(f.root)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return true, nil // what else is wrong is told where it is read
}

func (f *folder) Marked(context.Context) (pipeline, sink string, err error) {
	return target.Marked(filepath.Join(f.root, target.Books))
}

func (f *folder) Knows(checkpoint []byte) bool {
	_, ok := target.CommittedManifest(checkpoint)
	return ok
}

func (f *folder) Lines(_ context.Context, checkpoint []byte) iter.Seq2[Line, error] {
	committed, known := target.CommittedManifest(checkpoint)
	return func(yield func(Line, error) bool) {
		f.whole = 0
		for l, err := range target.ManifestLines(f.root) {
			if err == nil && (l.Err == nil || f.endsLine(l.End)) {
				f.whole = l.End
			}
			if !yield(Line{l, known && l.Offset >= committed}, err) || err != nil {
				return
			}
		}
	}
}

// endsLine reports whether a line end stands before an offset of the manifest.
func (f *folder) endsLine(end int64) bool {
	in, err := os.Open(f.Manifest())
	if err != nil {
		return false
	}
	defer in.Close()
	var last [1]byte
	_, err = in.ReadAt(last[:], end-1)
	return err == nil && last[0] == '\n'
}

func (f *folder) Whole() ([]byte, error) { return target.DirCheckpoint(f.whole) }

func (f *folder) Row(_ context.Context, offset int64) (target.Row, error) {
	return target.ManifestRow(f.root, offset)
}

func (f *folder) Manifest() string { return target.ManifestPath(f.root) }

// Rest has nothing to tell: a manifest in a folder is one file, of which Lines
// tells all.
func (f *folder) Rest(context.Context, []byte) ([]Flaw, error) { return nil, nil }

func (f *folder) All(ctx context.Context) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		err := filepath.WalkDir(f.root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || ctx.Err() != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil // it went away while we looked: what is missing is found by its row
				}
				return errors.Join(target.DiskError(err, "look through the target %s", f.root), ctx.Err())
			}
			if d.IsDir() {
				if d.Name() == target.Books || d.Name() == "lost+found" {
					return fs.SkipDir
				}
				return nil
			}
			name := filepath.ToSlash(strings.TrimPrefix(path[len(f.root):], string(filepath.Separator)))
			if !yield(File{name, -1}, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(File{}, err)
		}
	}
}

// errEnough ends a walk whose caller wants no more.
var errEnough = errors.New("enough")

// Open opens a regular file: a pipe would wait for ever.
func (f *folder) Open(_ context.Context, name string) (io.ReadCloser, int64, error) {
	path := f.Path(name)
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return nil, 0, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	if info, err = file.Stat(); err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

func (f *folder) Path(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

// AtOnce is more than there are cores, as some wait for the disk.
func (f *folder) AtOnce() int { return 2 * runtime.GOMAXPROCS(0) }

func (f *folder) Close() {}
