package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// guardedDir refuses a folder of programs that others may change. One that
// isn't there is no danger.
func guardedDir(dir, why string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New(fault.Config, "look at %s (%s): %w", dir, why, err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return fault.New(fault.Config, "look at %s (%s): %w", dir, why, err)
	}
	if who := writable(info); who != "" {
		return fault.New(fault.Config, "plugins aren't started from %s (%s): %s", dir, why, who).
			WithHint("its plugins get your passwords: let nobody but you write to it, as with chmod go-w %s", real)
	}
	return nil
}

// guarded refuses a plugin that others may change, or put another in the place
// of.
func guarded(f Found) error {
	if err := guardedDir(filepath.Dir(f.Path), f.Why); err != nil {
		return err
	}
	info, err := os.Stat(f.Path)
	if err != nil {
		return fault.New(fault.Config, "look at plugin %s: %w", f.Name, err)
	}
	if who := writable(info); who != "" {
		return fault.New(fault.Config, "plugin %s isn't started: %s: %s", f.Name, f.Path, who).
			WithHint("it gets your passwords: let nobody but you write to it, as with chmod go-w %s", f.Path)
	}
	return nil
}

// Checksum returns the sha256 of a plugin's executable, in hex.
func Checksum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.New(fault.Config, "read the plugin: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fault.New(fault.Config, "read the plugin %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// verify refuses an executable that isn't the one that was pinned. Between it
// and the start only those could change the file who may write to its folder,
// and guarded has looked at who they are.
func (h *Host) verify(f Found) error {
	if h.o.Pins == nil {
		return nil
	}
	want, ok := h.o.Pins[f.file()]
	if !ok {
		return fault.New(fault.Config, "plugin %s (%s) isn't in pipeline.lock", f.Name, f.Path).
			WithHint("when you trust it, add it with: pipeline plugin pin")
	}
	got, err := Checksum(f.Path)
	if err != nil {
		return err
	}
	if got != want {
		return fault.New(fault.Config, "plugin %s (%s) isn't the one that pipeline.lock names: its sha256 is %s, not %s", f.Name, f.Path, got, want).
			WithHint("install the pinned version again; or, when you trust this one, pin it with: pipeline plugin pin")
	}
	return nil
}
