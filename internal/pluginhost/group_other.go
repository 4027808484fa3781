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

// howEnded says how a process ended.
func howEnded(s *os.ProcessState) string { return fmt.Sprintf("ended with exit code %d", s.ExitCode()) }

// alive reports whether there may be a process of this id.
func alive(int) bool { return true }
