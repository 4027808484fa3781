// Package lockfile reads and writes pipeline.lock: which builds of which
// plugins a pipeline may start.
package lockfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Name is the file's, beside the pipeline file.
const Name = "pipeline.lock"

// Pin is one plugin as it was when it was pinned.
type Pin struct {
	Kind    string `yaml:"kind"` // source, sink, stage or store
	Name    string `yaml:"name"`
	Version string `yaml:"version"` // for people: the sum decides
	SHA256  string `yaml:"sha256"`  // of the executable, in hex
}

// Executable returns the name of the plugin's executable, without extension.
func (p Pin) Executable() string { return "pipeline-" + p.Kind + "-" + p.Name }

type file struct {
	Version int   `yaml:"version"`
	Plugins []Pin `yaml:"plugins"`
}

const head = "# Written by \"pipeline plugin pin\". A run starts no plugin whose executable differs.\n"

var sum = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Read returns the pins of the lock file in a folder, nil when there is none.
// An error is a fault.Config: with a lock that can't be read nothing is started.
func Read(folder string) ([]Pin, error) {
	path := filepath.Join(folder, Name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Config, "read the lock: %w", err)
	}
	wrong := func(format string, args ...any) error {
		return fault.New(fault.Config, "%s: %s", path, fmt.Sprintf(format, args...)).
			WithHint("write it anew with: pipeline plugin pin")
	}
	var f file
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		return nil, wrong("%v", err)
	}
	if f.Version != 1 {
		return nil, wrong("it is of version %d; this program knows 1", f.Version)
	}
	seen := map[string]bool{}
	for _, p := range f.Plugins {
		switch {
		case !slices.Contains([]string{"source", "sink", "stage", "store"}, p.Kind) || p.Name == "":
			return nil, wrong("a plugin is of the kind %q and the name %q", p.Kind, p.Name)
		case !sum.MatchString(p.SHA256):
			return nil, wrong("the sha256 of %s is %q, not 64 digits", p.Executable(), p.SHA256)
		case seen[p.Executable()]:
			return nil, wrong("%s stands in it twice", p.Executable())
		}
		seen[p.Executable()] = true
	}
	if f.Plugins == nil {
		f.Plugins = []Pin{} // an empty lock lets nothing pass
	}
	return f.Plugins, nil
}

// Write writes the lock file of a folder, in order of kind and name, whole or
// not at all.
func Write(folder string, pins []Pin) error {
	pins = slices.Clone(pins)
	slices.SortFunc(pins, func(a, b Pin) int { return strings.Compare(a.Executable(), b.Executable()) })
	var b bytes.Buffer
	b.WriteString(head)
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(file{Version: 1, Plugins: pins}), e.Close()); err != nil {
		return fault.New(fault.Bug, "write the lock: %w", err)
	}
	temp, err := os.CreateTemp(folder, Name+".*")
	if err != nil {
		return fault.New(fault.Full, "write the lock: %w", err)
	}
	defer os.Remove(temp.Name()) // nothing is there after the rename
	_, err = temp.Write(b.Bytes())
	if err := errors.Join(err, temp.Chmod(0o644), temp.Close()); err != nil {
		return fault.New(fault.Full, "write the lock: %w", err)
	}
	if err := os.Rename(temp.Name(), filepath.Join(folder, Name)); err != nil {
		return fault.New(fault.Full, "write the lock: %w", err)
	}
	return nil
}
