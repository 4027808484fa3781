package program

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what processes have used, and what they hold.
type Usage struct {
	CPU time.Duration // user and system time
	RSS int64         // octets
}

// tick is the unit of the times in /proc (proc_pid_stat(5)): USER_HZ, which is
// 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// Family adds up a process and all that live below it. Those that have ended
// count for the parent that waited for them. It is zero for a process that has
// ended.
func Family(pid int) Usage {
	var u Usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u
	}
	// The name in parentheses may hold anything, spaces too.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, i := range []int{11, 12, 13, 14} { // utime stime cutime cstime
		n, _ := strconv.ParseInt(f[i], 10, 64)
		u.CPU += time.Duration(n) * tick
	}
	pages, _ := strconv.ParseInt(f[21], 10, 64)
	u.RSS = pages * int64(os.Getpagesize())
	for _, pid := range Children(pid) {
		child := Family(pid)
		u.CPU += child.CPU
		u.RSS += child.RSS
	}
	return u
}

// Machine is the CPU time that anybody has used since the machine started.
func Machine() time.Duration {
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

// Children are the processes that a process started and that live.
func Children(pid int) (out []int) {
	// Each thread has the children that it started.
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well-formed
	for _, list := range lists {
		text, _ := os.ReadFile(list) // none where the thread has ended
		for child := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(child); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// Peak is the highest resident size of a process so far, in octets, which the
// kernel keeps (VmHWM); zero where it has ended. What the kernel tells the parent
// then isn't it: that has the parent's own size in it, from before exec.
func Peak(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseInt(kib, 10, 64)
	return n << 10
}
