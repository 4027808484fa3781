package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// DiskError gives an error of the file system its class: Full where room or a
// working disk is what helps, Config where the user must change a path or a
// permission.
func DiskError(err error, format string, args ...any) error {
	var f *fault.Error
	wrap := func(c fault.Class) *fault.Error { return fault.As(fault.Wrap(c, err, format, args...)) }
	switch {
	case err == nil:
		return nil
	case fault.As(err) != nil:
		return wrap(fault.Full)
	case errors.Is(err, syscall.ENOSPC):
		f = wrap(fault.Full).WithHint("make room on the disk and run again: it goes on where it stopped")
	case errors.Is(err, errQuota):
		f = wrap(fault.Full).WithHint("raise the quota or make room, and run again: it goes on where it stopped")
	case refused(err):
		f = wrap(fault.Config).WithHint("write to another path, or remove what stands in the way").WithKey("path")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		f = wrap(fault.Config).WithHint("give the user who runs this the right to write there, or write to another path").WithKey("path")
	default:
		f = wrap(fault.Full).WithHint("check the disk and run again: it goes on where it stopped")
	}
	return f
}

// NameError is DiskError for a message's own name, given by a template:
// where the file system refuses that name, only this message can't be written
// (I6).
func NameError(err error, format string, args ...any) error {
	if !refused(err) {
		return DiskError(err, format, args...)
	}
	return &fault.Error{
		Class: fault.Message, Text: fmt.Sprintf(format, args...) + ": " + err.Error(), Err: err,
		Reason: "name_refused", Hint: "write with another name template or a smaller max_path",
	}
}

// refused reports whether the file system can't have something of this name
// at this place.
func refused(err error) bool {
	for _, e := range []error{syscall.ENAMETOOLONG, syscall.EISDIR, syscall.ENOTDIR, syscall.ENOTEMPTY, syscall.EILSEQ} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// unfinished is the ending of a file that WriteFile had in hand. A crash may
// leave one behind: Take removes it.
const unfinished = ".new"

// IsAddress reports whether a sink's path is the address of a place in a bucket
// and not a path of the file system.
func IsAddress(path string) bool { return objects.IsAddress(path) }

// Absolute returns what the ledger knows a sink's path by: a relative one is
// one of the working directory; the address of a place in a bucket loses its
// parameters, which say how it is reached and not what it is. Errors are of class Config, with the key path.
func Absolute(path string) (string, error) {
	if path == "" {
		return "", fault.New(fault.Config, "path is empty").WithKey("path")
	}
	if objects.IsAddress(path) {
		l, err := objects.Parse(path)
		return l.Target, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fault.New(fault.Config, "make the path %q absolute: %w", path, err).WithKey("path")
	}
	return abs, nil
}

// WriteFile puts a small file in place, whole or not at all, and durably. A
// path has one writer at a time: whoever holds the target's lock.
func WriteFile(path string, b []byte) error {
	f, err := os.Create(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+unfinished))
	if err != nil {
		return DiskError(err, "write %s", path)
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	return DiskError(err, "write %s", path)
}

// MakeDirs makes a directory and those above it, durably.
func MakeDirs(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	up := filepath.Dir(path)
	if up != path {
		if err := MakeDirs(up); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return DiskError(err, "make the directory %s", path)
	}
	return DiskError(SyncDir(up), "make the directory %s durable", path)
}

// SyncDir makes the names in a directory durable. Windows can't, and needn't:
// NTFS journals them.
func SyncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	return syncPath(path)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// syncWorkers is how many fsyncs run at once: the journal commits them
// together, which is what makes them cheaper (docs/adr/0001-durability.md).
const syncWorkers = 8

// syncEach makes the files durable, and every directory from theirs up to
// root. names are relative to root, "/" between levels.
func syncEach(root string, names []string) error {
	dirs := map[string]bool{root: true}
	for _, name := range names {
		for d := filepath.Dir(name); d != "." && !dirs[filepath.Join(root, d)]; d = filepath.Dir(d) {
			dirs[filepath.Join(root, d)] = true
		}
	}
	if err := inParallel(len(names), func(i int) error {
		path := filepath.Join(root, filepath.FromSlash(names[i]))
		// Windows wants a file that may be written.
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	}); err != nil {
		return err
	}
	list := make([]string, 0, len(dirs))
	for d := range dirs {
		list = append(list, d)
	}
	return inParallel(len(list), func(i int) error { return SyncDir(list[i]) })
}

// inParallel calls f for 0 to n-1 from a few goroutines and returns the first
// error.
func inParallel(n int, f func(int) error) error {
	workers := min(syncWorkers, n)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// inside reports whether a name is relative and stays below its root.
func inside(name string) bool {
	return filepath.IsLocal(filepath.FromSlash(name)) && name != "." && !strings.HasSuffix(name, "/")
}
