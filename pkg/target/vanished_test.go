package target_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

// vanishings are the ways in which a folder goes while it is written to.
var vanishings = map[string]func(dir string) error{
	"removed":    os.RemoveAll,
	"moved away": func(dir string) error { return os.Rename(dir, dir+".away") },
	"replaced": func(dir string) error {
		return errors.Join(os.Rename(dir, dir+".away"), os.Mkdir(dir, 0o755))
	},
	"replaced with another target": func(dir string) error {
		books := filepath.Join(dir, target.Books)
		return errors.Join(os.Rename(dir, dir+".away"), os.MkdirAll(books, 0o755), os.WriteFile(filepath.Join(books, "lock"), nil, 0o644))
	},
	"its books are removed": func(dir string) error { return os.RemoveAll(filepath.Join(dir, target.Books)) },
}

// TestTheTargetVanishes: a target that goes while it is written to promises
// nothing any more (I3), and says so, though the system goes on to take what is
// written to it.
func TestTheTargetVanishes(t *testing.T) {
	t.Parallel()
	for name, vanish := range vanishings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join(t.TempDir(), "target")
			d := open(t, root, acme, nil)
			place(t, d, 1, "a/1.eml", "one")
			cp := flush(t, d)
			place(t, d, 2, "a/2.eml", "two")
			if err := vanish(root); err != nil {
				t.Fatal(err)
			}
			// What comes now is refused, or taken for a Flush that fails.
			if f, err := d.Create(); err != nil {
				wantGone(t, "Create", err, root)
			} else if err := f.Place(id(3), "b/3.eml", time.Time{}); err != nil {
				wantGone(t, "Place", err, root)
			}
			for range 2 {
				_, err := d.Flush(t.Context())
				wantGone(t, "Flush", err, root)
			}
			shut(t, d)
			if _, err := os.Stat(root + ".away"); err != nil {
				return
			}
			if err := errors.Join(os.RemoveAll(root), os.Rename(root+".away", root)); err != nil {
				t.Fatal(err)
			}
			d = open(t, root, acme, cp)
			defer shut(t, d)
			if got := rows(t, root); len(got) != 1 {
				t.Errorf("put back it has the rows %v, want that of the first message alone", got)
			}
		})
	}
}

func wantGone(t *testing.T, tried string, err error, root string) {
	t.Helper()
	if !fault.Is(err, fault.Full) || !strings.HasPrefix(err.Error(), "the target "+root+" was removed or moved away") || !strings.Contains(fault.As(err).Hint, "--rewrite archive") {
		t.Errorf("%s: %v, want that the target is gone", tried, err)
	}
}
