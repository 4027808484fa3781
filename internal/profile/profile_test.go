package profile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/mailhaul/pipeline/internal/profile"
)

// Only one profile of a process can be recorded at a time: no t.Parallel.
func TestStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	stop, err := profile.Start(dir, "it")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := profile.Start(dir, "again"); err == nil {
		t.Error("a second recording began beside the first")
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
			for _, name := range []string{"it.cpu.pprof", "it.heap.pprof"} {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Error(err)
				} else if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) { // profiles are gzipped
					t.Errorf("%s begins with %x: no profile", name, b[:min(len(b), 8)])
				}
			}
		})
	}
	wg.Wait()
	if stop, err = profile.Start(dir, "next"); err != nil {
		t.Fatal("a recording after the first has ended:", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestStartWhereNoFolderCanBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := profile.Start(filepath.Join(file, "below"), "it"); err == nil {
		t.Error("no error")
	}
}
