package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// TestTheFolderGoes: what is committed into a file that isn't at its path any
// more isn't done (I3), though SQLite goes on in it.
func TestTheFolderGoes(t *testing.T) {
	t.Parallel()
	for name, vanish := range map[string]func(dir string) error{
		"removed":    os.RemoveAll,
		"moved away": func(dir string) error { return os.Rename(dir, dir+".away") },
		"replaced": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".away"), os.Mkdir(dir, 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			l := open(t, dir)
			b, tg := box(t, l, "INBOX"), target(t, l, "archive")
			epoch := func(n uint32) Epoch {
				return Epoch{Settled: []Settled{{Box: b, ID: uid(n), Fates: []Fate{{Target: tg.ID, Class: Written}}}}}
			}
			commit(t, l, epoch(1))
			if err := vanish(dir); err != nil {
				t.Fatal(err)
			}
			err := l.Commit(t.Context(), epoch(2))
			t.Log(err)
			if !fault.Is(err, fault.Full) || fault.As(err).Hint == "" {
				t.Errorf("Commit: %v, want a fault of class Full with a hint", err)
			}
			// Whoever reads needs connections of its own, as several do at once.
			l.db.SetMaxIdleConns(0)
			if _, err := l.Lookup(t.Context(), b, []message.ID{uid(1)}); err != nil && !fault.Is(err, fault.Full) {
				t.Errorf("Lookup: %v, want nothing or a fault of class Full", err)
			}
			_ = l.Close()
			if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
				t.Errorf("the folder in its place has %v", left)
			}
			if _, err := os.Stat(dir + ".away"); err != nil {
				return
			}
			// Put back it is as it was, with what it was told.
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(dir+".away", dir); err != nil {
				t.Fatal(err)
			}
			l = open(t, dir)
			if found := lookup(t, l, box(t, l, "INBOX"), uid(1)); len(found) != 1 {
				t.Errorf("put back it has %d entries of the message that was committed before", len(found))
			}
		})
	}
}
