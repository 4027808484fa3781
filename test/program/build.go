package program

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Build says how executables are built for tests: as a release is, unless it
// says otherwise.
type Build struct {
	To     string   // the folder that they are put into
	Module string   // folder of the module that they are of, within the repository; empty: the repository's own
	Flags  []string // more of go build, as "-tags", "faultpoint"
	Cgo    bool     // with cgo, as go test builds: what is in its cache isn't compiled again
}

// Run builds packages, as "./cmd/pipeline". It may be called from a test of any
// package.
func (b Build) Run(packages ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", b.To + string(filepath.Separator)}, b.Flags...)
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Dir = filepath.Join(root, filepath.FromSlash(b.Module))
	if !b.Cgo {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(packages, " "), err, out)
	}
	return nil
}

// Main runs tests with what they start in a folder: build puts it there, and
// the folder is gone at the end. It returns the exit code. name begins the
// folder's.
func Main(m *testing.M, name string, build func(dir string) error) int {
	dir, err := os.MkdirTemp("", name)
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Root returns the folder of the repository, above the folder that the test
// runs in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "proto", "mailhaul")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("the test doesn't run below the repository")
		}
		dir = up
	}
}
