package target

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// A file appears whole under its name, whether or not it had another one before:
// in a directory that isn't there yet, and in place of an older file. Nothing is
// left of one that can't have its name, nor of one that was discarded.
func TestPlacesNamedAndUnnamed(t *testing.T) {
	t.Parallel()
	for _, unnamed := range []bool{true, false} {
		t.Run(fmt.Sprintf("unnamed=%v", unnamed), func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			d, err := OpenDir(t.Context(), root, Owner{Sink: "s", Pipeline: "p"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if unnamed && !d.disk.unnamed {
				t.Log("files without names can't be linked here (kernel, file system or privileges): named ones are tried twice")
			}
			d.disk.unnamed = d.disk.unnamed && unnamed
			at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
			write := func(name, octets string, at time.Time) error {
				f, err := d.Create()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.Write([]byte(octets)); err != nil {
					t.Fatal(err)
				}
				return f.Place(message.ID{Source: "s", UID: 1}, name, at)
			}
			for _, tt := range []struct{ name, octets string }{
				{"a.eml", "at the top"},
				{"x/y/z/b.eml", "three levels down"},
				{"x/y/c.eml", "beside one that is there"},
				{"x/y/z/b.eml", "in place of another"},
				{"x/y/z/b.eml", "and once more"},
			} {
				if err := write(tt.name, tt.octets, at); err != nil {
					t.Errorf("%s: %v", tt.octets, err)
				}
				path := filepath.Join(root, tt.name)
				if got, err := os.ReadFile(path); err != nil || string(got) != tt.octets {
					t.Errorf("%s: %q, %v", tt.octets, got, err)
				}
				if info, err := os.Stat(path); err != nil || !info.ModTime().Equal(at) {
					t.Errorf("%s: %v, %v; want a file of %v", tt.octets, info, err, at)
				}
			}
			if err := write("now.eml", "a mail without a date", time.Time{}); err != nil {
				t.Error(err)
			}
			if info, err := os.Stat(filepath.Join(root, "now.eml")); err != nil || time.Since(info.ModTime()) > time.Hour {
				t.Errorf("a mail without a date: %v, %v", info, err)
			}
			for _, name := range []string{"x/y", "a.eml/b", strings.Repeat("n", 300)} {
				if err := write(name, "it can't be", at); fault.As(err) == nil {
					t.Errorf("%.10s: %v, want an error", name, err)
				}
			}
			f, err := d.Create()
			if err != nil {
				t.Fatal(err)
			}
			f.Discard()
			if left, err := os.ReadDir(filepath.Join(root, Books, "tmp")); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
