//go:build faultpoint

package faultpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Variable says where to die: "name=3" is the third time that the process
// passes the point called name. VariableOnce names a file: the first process
// to create it dies, the others and the next one go on.
const (
	Variable     = "MAILHAUL_FAULTPOINT"
	VariableOnce = "MAILHAUL_FAULTPOINT_ONCE"
)

var left atomic.Int64

// Hit kills the process when it is its turn.
func Hit(name string) {
	want, count, _ := strings.Cut(os.Getenv(Variable), "=")
	if want != name {
		return
	}
	n, _ := strconv.ParseInt(count, 10, 64)
	if left.Add(1) != max(n, 1) {
		return
	}
	if once := os.Getenv(VariableOnce); once != "" {
		f, err := os.OpenFile(once, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return
		}
		f.Close()
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// Environ returns what of the environment a child process needs.
func Environ() []string {
	var out []string
	for _, name := range []string{Variable, VariableOnce} {
		if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return out
}
