//go:build faultpoint

package faultpoint

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Variable says where to die: "pipeline:engine.committed=3" is the third time
// that a process of the executable pipeline passes the point of that name; the
// executable is a pattern as in filepath.Match. VariableOnce names a file: the
// first process to make it writes its number into it and dies, the others and
// the next one go on.
// VariableSignal is the number of the signal that it sends itself instead of
// SIGKILL, and how often, as in "15" or "15,2"; it then goes on, if it can.
// VariableEpoch is how many messages an epoch has at most: with few of them a
// short run passes each point often.
const (
	Variable       = "MAILHAUL_FAULTPOINT"
	VariableOnce   = "MAILHAUL_FAULTPOINT_ONCE"
	VariableSignal = "MAILHAUL_FAULTPOINT_SIGNAL"
	VariableEpoch  = "MAILHAUL_EPOCH_ITEMS"
)

type place struct {
	name string
	pass int64
}

var (
	passed atomic.Int64
	armed  = sync.OnceValue(func() place {
		executable, point, _ := strings.Cut(os.Getenv(Variable), ":")
		if ours, err := filepath.Match(executable, filepath.Base(os.Args[0])); err != nil || !ours {
			return place{}
		}
		name, count, _ := strings.Cut(point, "=")
		n, _ := strconv.ParseInt(count, 10, 64) // 0, and so the first, when left out
		return place{name, max(n, 1)}
	})
)

// Hit kills the process when it is its turn.
func Hit(name string) {
	at := armed()
	if name != at.name || passed.Add(1) != at.pass {
		return
	}
	if once := os.Getenv(VariableOnce); once != "" {
		f, err := os.OpenFile(once, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return
		}
		_, err = f.WriteString(strconv.Itoa(os.Getpid()))
		if cerr := f.Close(); err != nil || cerr != nil {
			return
		}
	}
	signal, times, _ := strings.Cut(os.Getenv(VariableSignal), ",")
	if n, err := strconv.Atoi(signal); err == nil {
		often, _ := strconv.Atoi(times) // 0, and so once, when left out
		for range max(often, 1) {
			_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
		}
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// EpochItems returns how many messages an epoch has at most.
func EpochItems(usual int) int {
	if n, err := strconv.Atoi(os.Getenv(VariableEpoch)); err == nil && n > 0 {
		return n
	}
	return usual
}

// Environ returns what of the environment a child process needs.
func Environ() []string {
	var out []string
	for _, name := range []string{Variable, VariableOnce, VariableSignal} {
		if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return out
}
