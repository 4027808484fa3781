// Package objectstore runs the real store of objects for tests: the process
// that talks to a bucket, as the host starts it.
package objectstore

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/test/program"
)

// build builds the program once for all tests of a process, and returns its
// folder. It is without CGO_ENABLED=0, as the tests of the store's own packages
// are compiled: the clouds' SDKs take a minute, and are there already.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "mhst-")
	if err != nil {
		return "", err
	}
	return dir, program.Build{To: dir, Cgo: true}.Run("./plugins/pipeline-store-objects")
})

// Remove deletes the program: for the end of TestMain.
func Remove() {
	if dir, _ := build(); dir != "" {
		_ = os.RemoveAll(dir) // a temporary folder
	}
}

// Start starts a store until the test ends, and returns its socket. environ is
// where it finds its credentials.
func Start(t testing.TB, environ []string) string {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(program, "pipeline-store-objects")
	dir, err := os.MkdirTemp("", "mhst-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(program)
	cmd.Env = append(append(os.Environ(), environ...), objects.EnvListener+"=1")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // its end ends the store
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed
	})
	return socket
}

// Bucket returns a place in the store that listens on the socket, until the
// test ends.
func Bucket(t testing.TB, socket, address string) *objects.Bucket {
	t.Helper()
	at, err := objects.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	b, err := objects.Dial(socket, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}
