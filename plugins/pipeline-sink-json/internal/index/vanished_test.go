package index

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// TestTheFolderVanishes: an index whose folder goes while it is written promises
// nothing any more (I3), neither for its lines nor for those that replace others.
func TestTheFolderVanishes(t *testing.T) {
	t.Parallel()
	for name, vanish := range map[string]func(dir string) error{
		"removed":    os.RemoveAll,
		"moved away": func(dir string) error { return os.Rename(dir, dir+".away") },
		"replaced": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".away"), os.Mkdir(dir, 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "export")
			path := filepath.Join(dir, "index.jsonl")
			gone := func(tried string, err error) {
				t.Helper()
				if !fault.Is(err, fault.Full) || !strings.Contains(err.Error(), path+" was removed or moved away") || !strings.Contains(fault.As(err).Hint, "--rewrite index") {
					t.Errorf("%s: %v, want that the index is gone", tried, err)
				}
			}
			s := open(t, path, nil)
			write(t, s, 0, 0)
			write(t, s, 1, 0)
			first := commit(t, s)
			write(t, s, 0, 1)
			write(t, s, 2, 0)
			second := flush(t, s)
			if err := vanish(dir); err != nil {
				t.Fatal(err)
			}
			// The ledger has committed before it was seen: one line replaces another.
			gone("Committed", s.Committed(t.Context(), second))
			_, err := s.Write(t.Context(), record(3, 0))
			gone("Write", err)
			_, err = s.Flush(t.Context())
			gone("Flush", err)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
				t.Errorf("in the place of the folder there is %v", left)
			}
			if _, err := os.Stat(dir + ".away"); err != nil {
				return
			}
			if err := errors.Join(os.RemoveAll(dir), os.Rename(dir+".away", dir)); err != nil {
				t.Fatal(err)
			}
			s = open(t, path, first) // what came after is rolled back
			defer s.Close()
			if b, err := os.ReadFile(path); err != nil || strings.Count(string(b), "\n") != 2 {
				t.Errorf("put back it has %q, %v; want two lines", b, err)
			}
		})
	}
}
