//go:build unix

package pluginhost

import (
	"errors"
	"fmt"
	"os"
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
