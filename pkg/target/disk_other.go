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

// create makes a new temporary file.
func (d *disk) create(name string) (handle, error) {
	return os.OpenFile(filepath.Join(d.temp, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// write appends p to a file.
func (d *disk) write(h *handle, _ int64, p []byte) error {
	_, err := (*h).Write(p)
	return err
}

// discard takes a temporary file away. What stays behind is cleaned at the next
// Open.
func (d *disk) discard(h handle) {
	_ = h.Close()
	_ = os.Remove(h.Name())
}

// place closes a temporary file and gives it its name, in place of what may be
// there, and its time of change unless that is zero. After an error it is gone.
func (d *disk) place(h handle, name string, at time.Time) error {
	err := h.Close()
	if err == nil && !at.IsZero() {
		err = os.Chtimes(h.Name(), time.Time{}, at)
	}
	if err == nil {
		err = d.rename(h.Name(), filepath.Join(d.root, filepath.FromSlash(name)))
	}
	if err != nil {
		_ = os.Remove(h.Name())
	}
	return err
}

// rename makes the directory when it is missing.
func (d *disk) rename(from, to string) error {
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
