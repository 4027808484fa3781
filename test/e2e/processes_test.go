package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/program"
)

// children returns the processes that a process started, by their ids, with
// their names.
func children(pid int) map[int]string {
	out := map[int]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue // it has ended
		}
		text := string(b)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) || fields[0] == "Z" {
			continue
		}
		dir := filepath.Dir(s)
		id, _ := strconv.Atoi(filepath.Base(dir))
		if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
			out[id] = filepath.Base(exe)
		}
	}
	return out
}

// child waits for a plugin of a running command and returns its process id.
func (r *running) child(name string) int {
	r.t.Helper()
	found := 0
	until(r.t, "a process "+name, func() bool {
		for id, n := range children(r.cmd.Process.Pid) {
			if n == name {
				found = id
			}
		}
		return found != 0
	})
	return found
}

// kill kills a plugin of a running command as the kernel would when memory
// is short.
func (r *running) kill(name string) {
	r.t.Helper()
	if err := syscall.Kill(r.child(name), syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
}

// peaks watches a process and its children until ended and returns the
// highest resident size of each (VmHWM, which the kernel keeps: no peak
// between two looks is missed but in a process's last moment).
func peaks(pid int, ended <-chan struct{}) map[string]int64 {
	out := map[string]int64{}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		all := children(pid)
		all[pid] = "pipeline"
		for id, name := range all {
			out[name] = max(out[name], program.Peak(id)>>10)
		}
		select {
		case <-ended:
			return out
		case <-tick.C:
		}
	}
}

// mostResident is what DESIGN allows each process (I5).
const mostResident = 100 << 10 // KiB

// bounded checks the peaks of a run.
func bounded(t *testing.T, o outcome, names ...string) {
	t.Helper()
	for _, name := range names {
		if o.peaks[name] == 0 {
			t.Errorf("%s wasn't seen running: %v", name, o.peaks)
		}
	}
	for name, peak := range maps.All(o.peaks) {
		t.Logf("peak resident size of %s: %.1f MiB", name, float64(peak)/1024)
		if peak > mostResident {
			t.Errorf("%s: %d KiB resident, more than %d", name, peak, mostResident)
		}
	}
}
