package secrets_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mailhaul/pipeline/internal/secrets"
	"github.com/mailhaul/pipeline/pkg/fault"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	s := secrets.Store{Dir: filepath.Join(t.TempDir(), "state", "secrets")}
	if got, err := s.Read("gmail"); got != "" || err != nil {
		t.Errorf("read before any write: %q, %v; want nothing", got, err)
	}
	for _, value := range []string{"first", "second", ""} {
		if err := s.Write("ann@example.com", value); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Read("ann@example.com"); got != value || err != nil {
			t.Errorf("read %q, %v; want %q", got, err, value)
		}
	}
	file, err := os.Stat(filepath.Join(s.Dir, "ann@example.com"))
	if err != nil || file.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", file.Mode(), err)
	}
	dir, err := os.Stat(s.Dir)
	if err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("the folder's mode is %v, %v; want 0700", dir.Mode(), err)
	}
}

// A secret's name may come from a table that somebody else wrote.
func TestNamesThatLeaveTheFolderAreRefused(t *testing.T) {
	t.Parallel()
	s := secrets.Store{Dir: t.TempDir()}
	for _, name := range []string{"", ".", "..", "../x", "a/b", `a\b`, ".hidden", "a\x00b", "a\nb", strings.Repeat("x", 201)} {
		if err := s.Write(name, "hunter2"); !fault.Is(err, fault.Config) {
			t.Errorf("write %q: %v, want Config", name, err)
		}
		if _, err := s.Read(name); !fault.Is(err, fault.Config) {
			t.Errorf("read %q: %v, want Config", name, err)
		}
	}
	if left, err := os.ReadDir(s.Dir); len(left) != 0 || err != nil {
		t.Errorf("left %v, %v", left, err)
	}
}

// Whoever reads while others write sees one of the values, whole.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	s := secrets.Store{Dir: t.TempDir()}
	values := []string{strings.Repeat("a", 3000), strings.Repeat("b", 3000)}
	if err := s.Write("t", values[0]); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, v := range values {
		wg.Go(func() {
			for range 20 {
				if err := s.Write("t", v); err != nil {
					t.Error(err)
				}
				if got, err := s.Read("t"); err != nil || got != values[0] && got != values[1] {
					t.Errorf("read %.10q…, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
	left, err := os.ReadDir(s.Dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v; want the secret alone", left, err)
	}
}

// What can't be written says so, without the value (I9).
func TestAFolderThatCantBeMade(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := secrets.Store{Dir: filepath.Join(file, "secrets")}.Write("t", "hunter2")
	if !fault.Is(err, fault.Config) || fault.As(err).Hint == "" || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
