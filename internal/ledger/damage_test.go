package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// wrong checks that an error says what to do about the ledger's file.
func wrong(t *testing.T, err error, words string) {
	t.Helper()
	f := fault.As(err)
	if f == nil || f.Class != fault.Config || f.Hint == "" || f.Key != "state" || !strings.Contains(f.Text, words) {
		t.Errorf("got %v (%s, hint %q), want a Config fault of key state with a hint, and %q", err, fault.Of(err), hint(err), words)
	}
}

func hint(err error) string {
	if f := fault.As(err); f != nil {
		return f.Hint
	}
	return ""
}

func TestNotOurs(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, statements, want string }{
		{"a newer version", fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = 99; CREATE TABLE x (y)", applicationID), fmt.Sprintf("its format is version 99, this program knows %d", schemaVersion)},
		{"another program's database", "CREATE TABLE message (id)", "isn't a ledger"},
		{"another program's numbers", "PRAGMA user_version = 1; PRAGMA application_id = 5", "isn't a ledger"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "acme.db")
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.ExecContext(t.Context(), tt.statements); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(t.Context(), dir, "acme")
			wrong(t, err, tt.want)
			after, err := os.ReadFile(path)
			// The journal's mode, WAL, stands in octets 18 and 19; what counts
			// the changes, after 24 and 92.
			if err != nil || len(after) != len(before) || string(after[100:]) != string(before[100:]) {
				t.Errorf("somebody else's file was changed, %v", err)
			}
		})
	}
}

// whole makes a ledger with some of everything, and returns its file.
func whole(t *testing.T) []byte {
	t.Helper()
	l := open(t, t.TempDir())
	tg := target(t, l, "eml")
	for n := 1; n <= 2; n++ {
		commit(t, l, childEpoch(box(t, l, fmt.Sprint("box", n%7)), tg.ID, n))
	}
	if err := l.AddSuspects(t.Context(), box(t, l, "box1"), tg.ID, []message.ID{childID(1, 0), uid(5)}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.BeginRun(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	b, err := os.ReadFile(l.Path())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// useAll does with the ledger in dir what a run does, and returns the errors.
func useAll(dir string) []error {
	ctx := context.Background()
	l, err := Open(ctx, dir, "acme")
	if err != nil {
		return []error{err}
	}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	tg, err := l.Target(ctx, "eml", "/export/eml")
	note(err)
	note(l.MarkDirty(ctx, tg.ID))
	for n := 1; n <= 3; n++ {
		name := fmt.Sprint("box", n%7)
		_, err := l.SavedState(ctx, "alice", name, 1)
		note(err)
		b, err := l.Box(ctx, "alice", name, 1)
		note(err)
		_, err = l.HasMessages(ctx, b)
		note(err)
		ids := make([]message.ID, perEpoch)
		for i := range ids {
			ids[i] = childID(n, i)
		}
		_, err = l.Lookup(ctx, b, ids)
		note(err)
		e := childEpoch(b, tg.ID, n)
		for i := range e.Settled {
			e.Settled[i].Fresh = n == 3
		}
		note(l.Commit(ctx, e))
		note(l.AddSuspects(ctx, b, tg.ID, ids[:9]))
	}
	note(l.Letters(ctx, func(message.ID, string, Letter) error { return nil }))
	note(l.Forget(ctx, tg.ID))
	_, err = l.BeginRun(ctx, time.Now())
	note(err)
	note(l.Close())
	return errs
}

// checkDamage uses a damaged ledger: whatever it answers, it is an error that
// says what to do, or an answer.
func checkDamage(t *testing.T, dir string, file []byte, what string) (errs []error) {
	t.Helper()
	for _, name := range []string{"acme.db", "acme.db-wal", "acme.db-shm"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "acme.db"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	errs = useAll(dir)
	for _, err := range errs {
		if f := fault.As(err); f == nil || f.Class != fault.Config || f.Hint == "" {
			t.Errorf("%s: %v (%s, hint %q)", what, err, fault.Of(err), hint(err))
		}
	}
	return errs
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	file, dir := whole(t), t.TempDir()
	// A file cut down to nothing is a new ledger: the targets' markers notice.
	for _, size := range []int{15, 99, 100, 512, 4095, 4096, 4097, 8192, len(file) / 2, len(file) - 4096} {
		if errs := checkDamage(t, dir, file[:size], fmt.Sprintf("%d of %d octets", size, len(file))); len(errs) == 0 {
			t.Errorf("%d of %d octets: nobody noticed", size, len(file))
		}
	}
}

// TestFlippedBits turns bits around at random, in heads of pages more often
// than elsewhere. The seed makes a failure repeatable.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	file, dir := whole(t), t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	noticed := 0
	const rounds = 25
	for range rounds {
		bad := append([]byte(nil), file...)
		var at []int
		for range 1 + r.IntN(3) {
			i := r.IntN(len(bad))
			if r.IntN(2) == 0 {
				i = i&^4095 + r.IntN(64)
			}
			bad[i] ^= 1 << r.IntN(8)
			at = append(at, i)
		}
		if len(checkDamage(t, dir, bad, fmt.Sprintf("bits flipped at %d", at))) > 0 {
			noticed++
		}
	}
	t.Logf("%d of %d were noticed", noticed, rounds)
	if noticed < rounds/4 {
		t.Errorf("only %d of %d were noticed", noticed, rounds)
	}
}

// TestBrokenValues puts into rows what this program never writes.
func TestBrokenValues(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"a class that there isn't": "UPDATE message SET fates = x'01ff00'",
		"a class of no row":        "UPDATE message SET fates = x'010200'",
		"a fate cut short":         "UPDATE message SET fates = x'01'",
		"a receipt cut short":      "UPDATE message SET fates = x'010105'",
		"a target too big":         "UPDATE message SET fates = x'ffffffffff7f0100'",
		"a receipt of any size":    "UPDATE message SET fates = x'0101ffffffffffffffffff01'",
		"a letter":                 "UPDATE letter SET letter = '{'",
		"a mailbox's sums":         "UPDATE box SET tally = '['",
		"a rule that is gone":      "DELETE FROM rule",
		"a table that is gone":     "DROP TABLE suspect",
		"a text for a number":      "UPDATE suspect SET deaths = 'x'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, dir := whole(t), t.TempDir()
			path := filepath.Join(dir, "acme.db")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			errs := useAll(dir)
			if len(errs) == 0 {
				t.Fatal("nobody noticed")
			}
			wrong(t, errs[0], "ledger "+path)
		})
	}
}

func TestFoldersThatCannotBe(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), filepath.Join(file, "state"), "acme")
	wrong(t, err, "make the state directory")

	inTheWay := t.TempDir()
	if err := os.Mkdir(filepath.Join(inTheWay, "acme.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), inTheWay, "acme")
	wrong(t, err, "acme.db")

	odd := filepath.Join(t.TempDir(), "a b%20?#ü;&=.d") // names that a URL must escape
	l := open(t, odd)
	shut(t, l)
	if _, err := os.Stat(filepath.Join(odd, "acme.db")); err != nil {
		t.Error(err)
	}
}

// FuzzUnpack reads fates from any octets; what can be read is written back the
// same.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 1, 0})
	f.Add([]byte{1, 1, 3, 'a', 'b', 'c', 2, 4, 0, 0, 6, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 5, 0x80, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		fates, err := unpack(nil, b)
		if err != nil {
			var bad *damage
			if !errors.As(err, &bad) {
				t.Fatalf("%v isn't damage", err)
			}
			return
		}
		var packed []byte
		for i := range fates {
			packed = fates[i].pack(packed)
		}
		again, err := unpack(nil, packed)
		if err != nil || len(again) != len(fates) {
			t.Fatalf("%+v became %+v, %v", fates, again, err)
		}
		for i := range fates {
			if fates[i] != again[i] {
				t.Fatalf("%+v became %+v", fates[i], again[i])
			}
		}
	})
}
