package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stamp is all that a change to a file would change.
type stamp struct {
	Inode    uint64
	Size     int64
	Modified int64 // ns
	SHA256   string
}

// tree returns the stamps of everything below a path.
func tree(t *testing.T, path string) map[string]stamp {
	t.Helper()
	out := map[string]stamp{}
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s := stamp{Inode: info.Sys().(*syscall.Stat_t).Ino, Size: info.Size(), Modified: info.ModTime().UnixNano()}
		if d.Type().IsRegular() {
			s.SHA256 = sumFile(t, p)
		}
		name, err := filepath.Rel(path, p)
		out[name] = s
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// unchanged compares a tree with what it was.
func unchanged(t *testing.T, path string, before map[string]stamp) {
	t.Helper()
	if diff := cmp.Diff(before, tree(t, path)); diff != "" {
		t.Errorf("%s changed (-before +after):\n%s", filepath.Base(path), diff)
	}
}

func sumFile(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// mails returns the mails in a folder: path within it -> sha256. The sink's
// own books aren't mails.
func mails(t *testing.T, path string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, s := range tree(t, path) {
		if s.SHA256 != "" && !strings.HasPrefix(name, ".mailhaul/") {
			out[name] = s.SHA256
		}
	}
	return out
}
