package bench

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/mailhaul/pipeline/test/program"
)

// Run is what one run of one program took.
type Run struct {
	Wall    time.Duration
	CPU     time.Duration // of the program and every process it started, user and system
	Server  time.Duration // CPU of the mail server meanwhile
	Foreign time.Duration // CPU of everything else on the machine meanwhile
	RSS     int64         // octets: the highest sum over all its processes that was seen, every 50 ms
}

// measure runs a command and waits for it. server is the process that the
// mail server's processes descend from.
func measure(cmd *exec.Cmd, server int) (Run, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	busy, served := program.Machine(), program.Family(server).CPU
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return Run{}, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var r Run
	sample := time.NewTicker(50 * time.Millisecond) // each look at /proc takes CPU that the run could use
	defer sample.Stop()
	for {
		select {
		case <-sample.C:
			r.RSS = max(r.RSS, program.Family(cmd.Process.Pid).RSS)
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
	r.Server = program.Family(server).CPU - served
	r.Foreign = max(0, program.Machine()-busy-r.CPU-r.Server)
	return r, nil
}
