//go:build !unix

package pluginhost

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return nil }

func killGroup(p *os.Process) error {
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// others finds no processes: there are no groups.
func others(int) []string { return nil }

// writable says nothing: access control lists aren't read here.
func writable(os.FileInfo) string { return "" }

// howEnded says how a process ended.
func howEnded(s *os.ProcessState) string { return fmt.Sprintf("ended with exit code %d", s.ExitCode()) }

// alive reports whether there may be a process of this id.
func alive(int) bool { return true }
