package program_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/test/program"
)

// What a build that broke off left isn't a program, and the error says how to
// have it.
func TestFind(t *testing.T) {
	there := filepath.Join(t.TempDir(), "server")
	if err := os.WriteFile(there, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("A_SERVER", there)
	if got, err := program.Find("a server", "no-such-server", "nats", "A_SERVER"); err != nil || got != there {
		t.Errorf("%q, %v; want %s", got, err, there)
	}
	if err := os.Truncate(there, 0); err != nil {
		t.Fatal(err)
	}
	_, err := program.Find("a server", "no-such-server", "nats", "A_SERVER")
	if err == nil || !strings.Contains(err.Error(), "a server isn't there: .ci/install-deps") || !strings.Contains(err.Error(), "tools/nats/go.mod") {
		t.Errorf("an empty file: %v", err)
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	var said program.Output
	p := program.Start(t, &said, "/bin/sh", "-c", "echo ready; exec sleep 60")
	defer p.Kill()
	p.Await(t, "the shell", func(context.Context) error {
		if said.String() != "ready\n" {
			return errors.New("it isn't ready")
		}
		return nil
	})
	p.Kill()
	if err := p.Signal(os.Interrupt); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("it takes a signal after its death: %v", err)
	}
}
