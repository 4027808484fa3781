// Package secrets keeps secrets that are renewed while runs go on, as rotated
// refresh tokens: a file each, which only its owner can read. They stand in
// the pipeline file as ${store:NAME}.
package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Store is a folder of secrets. It is made by the first Write. Its methods may
// be called by many goroutines, and by several processes.
type Store struct {
	Dir string // as in .pipeline/secrets
}

// most is the most octets that a secret may have: a token has some thousand.
const most = 64 << 10

// Read returns the secret; one that was never written is empty.
func (s Store) Read(name string) (string, error) {
	if err := check(name); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(s.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fault.Wrap(fault.Config, bare(err), "read ${store:%s} from %s", name, s.Dir)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// Write keeps the secret in the place of what was there. When it returns the
// new value is durable; a crash leaves the old one or the new one, whole.
func (s Store) Write(name, value string) error {
	if err := check(name); err != nil {
		return err
	}
	if len(value) > most {
		return fault.New(fault.Bug, "store ${store:%s}: %d octets are no secret", name, len(value))
	}
	if err := s.write(name, value); err != nil {
		return fault.As(fault.Wrap(fault.Config, bare(err), "write ${store:%s} to %s", name, s.Dir)).
			WithHint("the state directory must be writable; a token that was renewed and not kept may be void: log in again")
	}
	return nil
}

func (s Store) write(name, value string) (err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.Dir, ".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // or what is left of it: never a whole secret
		}
	}()
	_, err = f.WriteString(value)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(s.Dir, name)); err != nil {
		return err
	}
	dir, err := os.Open(s.Dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// check refuses names that aren't one plain file of the folder. A name may
// come from a table of accounts.
func check(name string) error {
	odd := func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(`/\:*?"<>|`, r) }
	if name == "" || len(name) > 200 || name[0] == '.' || strings.ContainsFunc(name, odd) {
		return fault.New(fault.Config, "${store:%.40s}: the name can't be a file's", fmt.Sprintf("%q", name)).
			WithHint("use letters, digits, and . _ - @ + within")
	}
	return nil
}

// bare leaves out what os says of paths: the error names the place already.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
