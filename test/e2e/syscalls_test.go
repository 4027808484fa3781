//go:build strace

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/cost"
	"github.com/mailhaul/pipeline/test/dovecot"
)

// TestSystemCalls counts the system calls of whole runs that make, find, name
// and close files, in all processes. How often a run reads and writes is in
// TestCosts; how often it waits, wakes, commits and gets memory hangs on the
// machine. make syscalls runs it, where strace may trace.
func TestSystemCalls(t *testing.T) {
	server := dovecot.Start(t, dovecot.Options{})
	for i := range costly {
		server.Deliver("alice", "INBOX", costlyMail(i), time.Date(2024, 1, 1, 10, 0, 0, 0, time.UTC))
	}
	var counts []cost.Count
	for _, plugin := range []string{"imap", "pop3"} {
		at := map[string]string{"imap": server.IMAP, "pop3": server.POP3}[plugin]
		j := newJob(t, file{address: at, plugin: plugin, sinks: "  - {name: archive, plugin: eml, config: {path: export/eml}}\n", only: true}.String())
		for _, run := range []struct{ name, out string }{{"", "2048 listed = 2048 written"}, {", nothing new", "2048 done before"}} {
			calls := j.traced(run.out)
			files := 0
			for _, n := range calls {
				files += n
			}
			name := strings.ToUpper(plugin) + run.name
			counts = append(counts, cost.Count{Name: name + ": calls for files", Got: float64(files), Slack: .02, Plus: 60}) // a commit each second takes some
			t.Logf("%s: %v", name, calls)
		}
	}
	cost.Hold(t, filepath.Join("testdata", "syscalls.golden"), *update, counts...)
}

// forFiles are the calls that are counted; those that a machine doesn't have are
// passed over. Locks and flushes aren't among them: a slow run commits oftener.
const forFiles = "?open,openat,?creat,close,?stat,?lstat,fstat,newfstatat,?statx,?rename,renameat,?renameat2,?link,linkat," +
	"?unlink,unlinkat,?mkdir,mkdirat,?utimes,utimensat,fchmod,?chmod,fchmodat,ftruncate,?access,faccessat,?faccessat2"

// traced runs the pipeline under strace and returns how often it and its
// plugins made each of those calls. All others go on untraced, at full speed.
func (j *job) traced(out string) map[string]int {
	j.t.Helper()
	cmd := exec.Command("strace", "-f", "--seccomp-bpf", "-e", "trace="+forFiles, "-c", "-o", "calls", filepath.Join(j.bin.dir, "pipeline"), "run")
	cmd.Dir, cmd.Env = j.dir, j.env
	said, err := cmd.CombinedOutput()
	if err != nil {
		j.t.Fatalf("run under strace (apt-get install strace): %v\n%s", err, said)
	}
	needs(j.t, string(said), out)
	text, err := os.ReadFile(j.path("calls"))
	if err != nil {
		j.t.Fatal(err)
	}
	calls := map[string]int{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line) // % time, seconds, usecs/call, calls, errors or nothing, name
		if len(f) < 5 || !slices.Contains([]int{5, 6}, len(f)) {
			continue
		}
		if n, err := strconv.Atoi(f[3]); err == nil && f[len(f)-1] != "total" {
			calls[f[len(f)-1]] = n
		}
	}
	if calls["openat"] == 0 {
		j.t.Fatalf("strace counted no files:\n%s", text)
	}
	return calls
}
