package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// sealed makes a ledger that is closed, and returns its file and its seal.
func sealed(t *testing.T) (file, seal []byte) {
	t.Helper()
	dir := t.TempDir()
	l := open(t, dir)
	tg := target(t, l, "eml")
	for n := 1; n <= 3; n++ {
		commit(t, l, childEpoch(box(t, l, fmt.Sprint("box", n%7)), tg.ID, n))
	}
	shut(t, l)
	file, err := os.ReadFile(l.Path())
	if err == nil {
		seal, err = os.ReadFile(l.Path() + sealEnd)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file, seal
}

// put puts a ledger and its seal into a new folder; a nil seal is none.
func put(t *testing.T, file, seal []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, b := range map[string][]byte{"acme.db": file, "acme.db" + sealEnd: seal} {
		if b == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestSealedDamage turns single bits of a closed ledger around, wherever they
// are, and cuts it off: each time that is noticed before it is used, and again
// the next time, and the file stays as it is.
func TestSealedDamage(t *testing.T) {
	t.Parallel()
	file, seal := sealed(t)
	noticed := func(bad []byte, what string) {
		t.Helper()
		dir := put(t, bad, seal)
		for range 2 {
			l, err := Open(t.Context(), dir, "acme")
			if err == nil {
				shut(t, l)
				t.Errorf("%s: nobody noticed", what)
				return
			}
			if f := fault.As(err); f == nil || f.Class != fault.Config || !strings.Contains(f.Hint, "damaged") && !strings.Contains(f.Hint, "aside") && !strings.Contains(f.Hint, "state directory") {
				t.Errorf("%s: %v (hint %q)", what, err, hint(err))
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		bad := append([]byte(nil), file...)
		i, bit := r.IntN(len(bad)), r.IntN(8)
		bad[i] ^= 1 << bit
		noticed(bad, fmt.Sprintf("bit %d of octet %d", bit, i))
	}
	for n := range 30 {
		size := n * len(file) / 30
		noticed(file[:size], fmt.Sprintf("cut off at %d of %d", size, len(file)))
	}
	noticed(append(append([]byte(nil), file...), 0), "an octet more")
}

// TestSealSaysNothingOfOtherFiles: a ledger that was put back from a backup, or
// made anew where one was moved away, isn't called damaged by a seal that stayed;
// nor is one whose process was killed.
func TestSealSaysNothingOfOtherFiles(t *testing.T) {
	t.Parallel()
	file, seal := sealed(t)
	older, _ := sealed(t)
	for name, dir := range map[string]string{
		"as it was": put(t, file, seal), "no seal": put(t, file, nil), "another file": put(t, older, seal),
		"no file": put(t, nil, seal), "a broken seal": put(t, file, []byte("{")),
		"a broken size": put(t, file, bytes.Replace(seal, []byte(`"size":`), []byte(`"size":-0.`), 1)),
	} {
		l := open(t, dir)
		if _, err := os.Stat(l.Path() + sealEnd); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: an open ledger has a seal: %v", name, err)
		}
		shut(t, l)
		shut(t, open(t, dir))
	}
}

// TestReadersLeaveTheSeal: who looks at a closed ledger leaves its seal true;
// while somebody looks, a run that ends can't seal it, and that harms nothing.
func TestReadersLeaveTheSeal(t *testing.T) {
	t.Parallel()
	file, seal := sealed(t)
	dir := put(t, file, seal)
	view := func() *Ledger {
		l, err := View(t.Context(), dir, "acme")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Runs(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		return l
	}
	shut(t, view())
	shut(t, open(t, dir))
	v := view()
	shut(t, open(t, dir))
	shut(t, v)
	shut(t, open(t, dir))
}

// TestPutAside puts damaged ledgers aside, each under a name of its own, and one
// that no sink has used; and no other.
func TestPutAside(t *testing.T) {
	t.Parallel()
	file, seal := sealed(t)
	dir := put(t, file, seal)
	if aside, err := PutAside(t.Context(), dir, "acme"); aside != "" || err != nil {
		t.Errorf("a good one: %q, %v", aside, err)
	}
	if aside, err := PutAside(t.Context(), dir, "other"); aside != "" || err != nil {
		t.Errorf("none: %q, %v", aside, err)
	}
	// One that knows a target, and nothing that was committed to it.
	l := open(t, t.TempDir())
	target(t, l, "eml")
	shut(t, l)
	unused := filepath.Dir(l.Path())
	if aside, err := PutAside(t.Context(), unused, "acme"); aside != filepath.Join(unused, "acme.db.unused-1") || err != nil {
		t.Errorf("an unused one: %q, %v", aside, err)
	}
	bad := append([]byte(nil), file...)
	bad[len(bad)-5] ^= 4
	for n := 1; n <= 2; n++ {
		for name, b := range map[string][]byte{"acme.db": bad, "acme.db" + sealEnd: seal} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		aside, err := PutAside(t.Context(), dir, "acme")
		if want := filepath.Join(dir, fmt.Sprintf("acme.db.damaged-%d", n)); aside != want || err != nil {
			t.Fatalf("put aside as %q, %v; want %q", aside, err, want)
		}
		if kept, err := os.ReadFile(aside); err != nil || string(kept) != string(bad) {
			t.Errorf("what was put aside isn't what it was: %v", err)
		}
	}
	if matches, err := filepath.Glob(filepath.Join(dir, "acme.db")); err != nil || len(matches) != 0 {
		t.Errorf("it is still there: %v, %v", matches, err)
	}
}
