//go:build !linux

package target

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// disk is the target's directory and that of its temporary files.
type disk struct {
	root, temp string
	whole      bool // always false: no call makes a whole file system durable
}

// handle is an open temporary file.
type handle = *os.File

func openDisk(root, temp string) (*disk, error) { return &disk{root: root, temp: temp}, nil }

func (d *disk) close() error { return nil }

func (d *disk) create(name string) (handle, error) {
	return os.OpenFile(filepath.Join(d.temp, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// write appends p to a file.
func (d *disk) write(h *handle, _ int64, p []byte) error {
	_, err := (*h).Write(p)
	return err
}

func (d *disk) closeFile(h handle) error { return h.Close() }

func (d *disk) remove(name string) error { return os.Remove(filepath.Join(d.temp, name)) }

// setTime sets the time of change of a temporary file.
func (d *disk) setTime(name string, at time.Time) error {
	return os.Chtimes(filepath.Join(d.temp, name), time.Time{}, at)
}

// place gives a temporary file its name, and makes the directory when it is
// missing.
func (d *disk) place(temp, name string) error {
	from, to := filepath.Join(d.temp, temp), filepath.Join(d.root, filepath.FromSlash(name))
	err := os.Rename(from, to)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (d *disk) sync(names []string) error { return syncEach(d.root, names) }
