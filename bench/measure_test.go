package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Run is what one run of one program took.
type Run struct {
	Wall    time.Duration
	CPU     time.Duration // of the program and every process it started, user and system
	Server  time.Duration // CPU of the mail server meanwhile
	Foreign time.Duration // CPU of everything else on the machine meanwhile
	RSS     int64         // octets: the highest sum over all its processes that was seen, every 10 ms
}

// tick is the unit of the times in /proc (proc_pid_stat(5)): USER_HZ, which is
// 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// measure runs a command and waits for it. server is the process that the
// mail server's processes descend from.
func measure(cmd *exec.Cmd, server int) (Run, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	busy, served := machine(), family(server).cpu
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return Run{}, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var r Run
	sample := time.NewTicker(10 * time.Millisecond)
	defer sample.Stop()
	for {
		select {
		case <-sample.C:
			r.RSS = max(r.RSS, family(cmd.Process.Pid).rss)
			continue
		case err := <-done:
			r.Wall = time.Since(start)
			if err != nil {
				return r, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out.Bytes())
			}
		}
		break
	}
	// Children that were waited for are in it, and the plugin host waits for
	// its plugins.
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	r.CPU = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	r.Server = family(server).cpu - served
	r.Foreign = max(0, machine()-busy-r.CPU-r.Server)
	return r, nil
}

// tree is what a process and its descendants hold and have used.
type tree struct {
	cpu time.Duration
	rss int64
}

// family adds up a process and all that live below it. Those that have ended
// count for the parent that waited for them.
func family(pid int) tree {
	var t tree
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return t
	}
	// The name in parentheses may hold anything, spaces too.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, i := range []int{11, 12, 13, 14} { // utime stime cutime cstime
		n, _ := strconv.ParseInt(f[i], 10, 64)
		t.cpu += time.Duration(n) * tick
	}
	pages, _ := strconv.ParseInt(f[21], 10, 64)
	t.rss = pages * int64(os.Getpagesize())
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, c := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(c); err == nil {
				child := family(n)
				t.cpu += child.cpu
				t.rss += child.rss
			}
		}
	}
	return t
}

// machine is the CPU time that anybody has used since the machine started.
func machine() time.Duration {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(stat), "\n")
	var sum time.Duration
	for i, s := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 7 { // cpu, idle, iowait; guests count as user already
			continue
		}
		n, _ := strconv.ParseInt(s, 10, 64)
		sum += time.Duration(n) * tick
	}
	return sum
}
