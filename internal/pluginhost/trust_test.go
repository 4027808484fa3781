package pluginhost_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// refused opens a source on a host with these options, and checks that it is
// refused as a matter of the config, with a way out.
func refused(t *testing.T, o pluginhost.Options, words string) {
	t.Helper()
	o.SocketDir = short(t)
	h, err := pluginhost.New(o)
	if err == nil {
		defer h.Close(t.Context())
		_, err = h.OpenSource(t.Context(), pluginhost.SessionSpec{Plugin: "test", Config: []byte(`{}`)}, false)
	}
	if !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), words) || fault.As(err).Hint == "" {
		t.Errorf("%v, want Config with a hint, and %q", err, words)
	}
}

// What others may write to is no place for programs that get passwords (I9).
func TestPlacesThatOthersMayWriteToAreRefused(t *testing.T) {
	t.Parallel()
	open := func(path string) {
		t.Helper()
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	dir := link(t, "pipeline-source-test")
	open(dir)
	refused(t, pluginhost.Options{Dirs: []string{dir}}, "everybody may write")
	refused(t, pluginhost.Options{Path: dir}, "everybody may write")

	through := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, through); err != nil {
		t.Fatal(err)
	}
	refused(t, pluginhost.Options{Dirs: []string{through}}, "everybody may write")

	script := t.TempDir()
	file := filepath.Join(script, "pipeline-source-test")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	open(file)
	refused(t, pluginhost.Options{Dirs: []string{script}}, "everybody may write")
}

func TestPins(t *testing.T) {
	t.Parallel()
	dir := link(t, "pipeline-source-test")
	sum, err := pluginhost.Checksum(filepath.Join(dir, "pipeline-source-test"))
	if err != nil {
		t.Fatal(err)
	}
	pin := func(sum string) pluginhost.Options {
		return pluginhost.Options{Dirs: []string{dir}, Pins: map[string]string{"pipeline-source-test": sum}}
	}
	h, _ := newHost(t, pin(sum))
	openSource(t, h, `{}`, false)
	refused(t, pin(strings.Repeat("0", 64)), sum)
	refused(t, pluginhost.Options{Dirs: []string{dir}, Pins: map[string]string{}}, "isn't in pipeline.lock")
}

// Where there is no private socket both sides prove who they are.
func TestTLS(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-source-test")}, TLS: true})
	openSource(t, h, `{}`, false)
}

// A plugin that listens on TCP could be talked to by anybody on the machine.
func TestTCPWithoutTLSIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := "#!/bin/sh\necho '1|1|tcp|127.0.0.1:9|grpc'\nexec sleep 20\n"
	if err := os.WriteFile(filepath.Join(dir, "pipeline-source-test"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	refused(t, pluginhost.Options{Dirs: []string{dir}}, "TCP without TLS")
}

// What stood where the handshake should be is in the error.
func TestPrintsBeforeTheHandshakeAreInTheError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'Loading configuration from /etc/x'\n"
	if err := os.WriteFile(filepath.Join(dir, "pipeline-source-test"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h, _ := newHost(t, pluginhost.Options{Dirs: []string{dir}})
	_, err := h.Describe(t.Context(), pluginhost.Source, "test")
	if !fault.Is(err, fault.Crashed) || !strings.Contains(err.Error(), "Loading configuration") || fault.As(err).Hint == "" {
		t.Errorf("%v, want Crashed with a hint and what was printed", err)
	}
}

// A plugin that a person started serves one host after the other, and isn't
// ended by them.
func TestReattach(t *testing.T) {
	t.Parallel()
	plugin := exec.Command(filepath.Join(link(t, "pipeline-source-test"), "pipeline-source-test"), "serve", "--debug")
	out, err := plugin.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := plugin.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		plugin.Process.Kill()
		plugin.Wait()
	})
	reattach := ""
	for lines := bufio.NewScanner(out); reattach == "" && lines.Scan(); {
		if _, value, ok := strings.Cut(lines.Text(), "export MAILHAUL_REATTACH='"); ok {
			reattach = strings.TrimSuffix(value, "'")
		}
	}
	for range 3 {
		h, err := pluginhost.New(pluginhost.Options{Reattach: reattach, SocketDir: short(t)})
		if err != nil {
			t.Fatal(err)
		}
		for _, isolated := range []bool{false, true} {
			spec := pluginhost.SessionSpec{Plugin: "test", Config: []byte(`{"password": {"$secret": "p"}}`)}
			spec.Secrets.Value = secretsOf("hunter2")
			o, err := h.OpenSource(t.Context(), spec, isolated)
			if err != nil || o.URL != fmt.Sprint(plugin.Process.Pid) {
				t.Fatalf("opened in process %s, want %d: %v", o.URL, plugin.Process.Pid, err)
			}
			if isolated {
				continue // left open, as by a host that is killed: the next one isn't told
			}
			if err := o.Source.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := plugin.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := plugin.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	refused(t, pluginhost.Options{Reattach: reattach}, "nothing listens")
	if _, err := pluginhost.New(pluginhost.Options{Reattach: "nonsense"}); !fault.Is(err, fault.Config) {
		t.Errorf("%v, want Config", err)
	}
}

func secretsOf(value string) func(context.Context, string) (string, error) {
	return func(context.Context, string) (string, error) { return value, nil }
}
