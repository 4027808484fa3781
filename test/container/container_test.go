//go:build container

// Package container holds the test of what the Dockerfile makes: the root that
// .ci/image fills, read-only, with the processes of the command alone, as the
// user that the Dockerfile names. It needs root and mounts, so it has a target
// of its own: make container.
package container

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// image is a container that was built.
type image struct {
	root       string
	env        []string
	entrypoint string
	user       string
}

// build does what the Dockerfile does.
func build(t *testing.T) image {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can mount a read-only root: run make container as root")
	}
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string) string {
		m := regexp.MustCompile(`(?m)^` + pattern + `$`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("the Dockerfile has no line %s", pattern)
		}
		return string(m[1])
	}
	// Short: sockets of plugins have paths of at most 108 octets.
	dir, err := os.MkdirTemp("/tmp", "image")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	i := image{root: filepath.Join(dir, "root"), env: strings.Fields(find(`ENV (.*)`)), entrypoint: find(`ENTRYPOINT \["(.*)"\]`), user: find(`USER (.*)`)}
	cmd := exec.Command(filepath.Join("../..", find(`RUN (\.ci/image) /image`)), i.root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What every container gets of its engine.
	for _, dir := range []string{"proc", "dev"} {
		if err := os.Mkdir(filepath.Join(i.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(i.root, "dev/null"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	return i
}

// mounts makes the root of a container in a mount namespace and a PID
// namespace of its own, and starts the command there as process 1.
const mounts = `set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount --bind "$DATA" "$ROOT/data"
mount --bind "$ETC" "$ROOT/etc/mailhaul"
mount --bind /dev/null "$ROOT/dev/null"
mount -t proc proc "$ROOT/proc"
mount -o remount,bind,ro "$ROOT"
mount -o remount,bind,ro "$ROOT/etc/mailhaul"
CHROOT=$(command -v chroot)
exec env -i $ENVIRONMENT "$CHROOT" --userspec="$CUSER" "$ROOT" "$@"
`

// volume is what is mounted into a container.
type volume struct {
	image
	t         *testing.T
	data, etc string
	env       []string
}

func (i image) mount(t *testing.T, yaml string, env ...string) *volume {
	t.Helper()
	v := &volume{image: i, t: t, data: filepath.Join(t.TempDir(), "data"), etc: t.TempDir(), env: env}
	if err := os.Mkdir(v.data, 0o700); err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(i.user[:strings.IndexByte(i.user, ':')])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(v.data, uid, uid); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.etc, "pipeline.yaml"), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(v.etc, 0o755); err != nil {
		t.Fatal(err)
	}
	return v
}

// start starts the command in a container.
func (v *volume) start(out *bytes.Buffer, args ...string) *exec.Cmd {
	v.t.Helper()
	cmd := exec.Command("unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child", "sh", "-c", mounts, "sh", v.entrypoint}, args...)...)
	cmd.Env = append(os.Environ(), "ROOT="+v.root, "DATA="+v.data, "ETC="+v.etc, "CUSER="+v.user,
		"ENVIRONMENT="+strings.Join(append(v.image.env, v.env...), " "))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { cmd.Process.Kill() }) // no effect once it has ended
	return cmd
}

func (v *volume) run(code int, args ...string) string {
	v.t.Helper()
	var out bytes.Buffer
	cmd := v.start(&out, args...)
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != code {
		v.t.Fatalf("%v: exit code %d, want %d\n%s", args, got, code, out.String())
	}
	return out.String()
}

const yaml = `version: 1
name: container
state: /data/state
timezone: Europe/Berlin
sources:
  - name: alice
    plugin: imap
    config: {address: "${env:IMAP}", security: none, username: alice, password: "${env:PASSWORD}", connections: 1}
sinks:
  - {name: archive, plugin: eml, config: {path: /data/export}}
  - {name: index, plugin: json, config: {path: /data/index.jsonl}}
report: {json: /data/reports/last.json, html: /data/reports/last.html}
`

// TestContainer builds the image and runs what it holds.
func TestContainer(t *testing.T) {
	i := build(t)

	// Static, with nothing but what a run needs.
	programs, err := filepath.Glob(filepath.Join(i.root, "usr/local/bin/*"))
	if err != nil || len(programs) < 7 {
		t.Fatalf("programs: %v, %v", programs, err)
	}
	for _, p := range programs {
		if out, err := exec.Command("ldd", p).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("not a dynamic executable")) {
			t.Errorf("%s isn't static: %s", p, out)
		}
	}
	var size int64
	err = filepath.WalkDir(i.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			size += info.Size()
			if info.Mode()&0o111 != 0 && filepath.Base(filepath.Dir(path)) != "bin" || info.Mode()&fs.ModeSetuid != 0 {
				t.Errorf("%s is executable", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the image has %.1f MB", float64(size)/1e6)
	for _, name := range []string{"etc/ssl/certs/ca-certificates.crt", "usr/share/zoneinfo/Europe/Berlin", "etc/passwd"} {
		if info, err := os.Stat(filepath.Join(i.root, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}

	server := dovecot.Start(t, dovecot.Options{})
	const messages = 300
	for n := range messages {
		server.Deliver("alice", "INBOX", fmt.Appendf(nil, "Subject: %d\r\n\r\n%s\r\n", n, strings.Repeat("x", 20_000)), time.Unix(1_700_000_000+int64(n), 0))
	}
	config := "--config=/etc/mailhaul/pipeline.yaml"
	count := func(v *volume) (n int) {
		err := filepath.WalkDir(filepath.Join(v.data, "export"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".eml") {
				n++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	t.Run("run", func(t *testing.T) {
		v := i.mount(t, yaml, "IMAP="+server.IMAP, "PASSWORD="+dovecot.Password)
		out := v.run(0, "run", config)
		if !strings.Contains(out, fmt.Sprintf("total: %[1]d listed = %[1]d written", messages)) || count(v) != messages {
			t.Errorf("%s", out)
		}
		v.run(0, "verify", config)
		v.run(0, "status", config)
	})
	t.Run("nothing is written elsewhere", func(t *testing.T) {
		v := i.mount(t, strings.ReplaceAll(yaml, "/data/export", "/export"), "IMAP="+server.IMAP, "PASSWORD="+dovecot.Password)
		if out := v.run(1, "run", config); !strings.Contains(out, "read-only file system") {
			t.Errorf("%s", out)
		}
	})
	t.Run("authorities are trusted", func(t *testing.T) {
		// Dovecot's certificate is none of theirs: it is held against them, and refused.
		v := i.mount(t, strings.Replace(yaml, "security: none", "security: tls", 1), "IMAP="+server.IMAPS, "PASSWORD="+dovecot.Password)
		if out := v.run(4, "run", config); !strings.Contains(out, "signed by an unknown authority") {
			t.Errorf("%s", out)
		}
	})
	t.Run("SIGTERM to process 1", func(t *testing.T) {
		// A server that falls silent in the middle of a message.
		proxy := wireproxy.Start(t, server.IMAP)
		var passed atomic.Int64
		held := make(chan struct{})
		var once atomic.Bool
		proxy.Tap(func(fromServer bool, p []byte) {
			if fromServer && passed.Add(int64(len(p))) > 3_000_000 && once.CompareAndSwap(false, true) {
				proxy.Stall(true)
				close(held)
			}
		})
		v := i.mount(t, yaml, "IMAP="+proxy.Addr, "PASSWORD="+dovecot.Password)
		var out bytes.Buffer
		cmd := v.start(&out, "run", config)
		select {
		case <-held:
		case <-time.After(2 * time.Minute):
			t.Fatalf("the run never came to its middle: %s", out.String())
		}
		began := time.Now()
		if err := syscall.Kill(first(t, cmd.Process.Pid), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		took := time.Since(began)
		t.Logf("it ended %v after SIGTERM\n%s", took.Round(time.Millisecond), out.String())
		if code := cmd.ProcessState.ExitCode(); code != 1 || took > 10*time.Second {
			t.Errorf("exit code %d after %v", code, took)
		}
		before := count(v)
		proxy.Stall(false)
		again := v.run(0, "run", config)
		if strings.Contains(again, " 0 done before") || !strings.Contains(again, "done before") || count(v) != messages {
			t.Errorf("of %d files none was committed: %s", before, again)
		}
	})
}

// first returns the process that is process 1 of the namespace that a process
// made.
func first(t *testing.T, parent int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(b) + " x")[0])
	if err != nil {
		t.Fatalf("it has no child: %q", b)
	}
	return pid
}

// TestUnits has systemd itself read the service and the timer.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"mailhaul.service", "mailhaul.timer"} {
		b, err := os.ReadFile(filepath.Join("../../examples/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(b), "/usr/local/bin/pipeline", "/bin/true") // which must be there
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := exec.Command("systemd-analyze", "verify", "--man=no", "mailhaul.timer", "mailhaul.service")
	verify.Dir = dir
	if out, err := verify.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify (of Debian's package systemd): %v\n%s", err, out)
	}
}
