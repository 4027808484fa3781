//go:build unix

package pluginhost

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ownGroup puts a plugin into a process group of its own: a Ctrl-C on the
// terminal is for the host alone, and what a plugin starts ends with it.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func killGroup(p *os.Process) error {
	if err := syscall.Kill(-p.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// others returns the processes of a group whose leader has ended, as "pid
// (name)". It looks into /proc, and finds none where there isn't one.
func others(group int) []string {
	if errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) {
		return nil // as nearly always, and for less than a look at each process
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	var out []string
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// proc(5): pid (comm) state ppid pgrp …; comm may hold anything.
		end := strings.LastIndexByte(string(b), ')')
		fields := strings.Fields(string(b[end+1:]))
		if end > 0 && len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" && fields[0] != "X" {
			out = append(out, string(b[:end+1]))
		}
	}
	return out
}

// writable says who else may write to a file or folder; empty when nobody may
// but its owner, who is this user or root, and this user's own group.
func writable(info os.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode().Perm()&0o002 != 0:
		return "everybody may write to it"
	case !ok:
		return ""
	case info.Mode().Perm()&0o020 != 0 && st.Gid != 0 && int(st.Gid) != os.Getegid():
		return fmt.Sprintf("group %d may write to it", st.Gid)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Sprintf("it belongs to user %d", st.Uid)
	}
	return ""
}

// howEnded says how a process ended.
func howEnded(s *os.ProcessState) string {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return fmt.Sprintf("was killed by signal %d (%v)", w.Signal(), w.Signal())
	}
	return fmt.Sprintf("ended with exit code %d", s.ExitCode())
}

// alive reports whether there is a process of this id.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
