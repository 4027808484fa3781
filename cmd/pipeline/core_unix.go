//go:build unix

package main

import (
	"runtime"
	"syscall"
)

// withoutCore keeps this process, and those that it starts, from leaving a core:
// it would have the passwords in it (I9). Go leaves one only where GOTRACEBACK
// says crash; plugins in other languages would at any fault.
func withoutCore() {
	limit := syscall.Rlimit{}
	if runtime.GOOS == "linux" {
		// No file begins with one octet, and at this very limit Linux hands no
		// core to a program that asks for them either (fs/coredump.c), which it
		// does at none.
		limit.Cur, limit.Max = 1, 1
	}
	if syscall.Setrlimit(syscall.RLIMIT_CORE, &limit) != nil {
		// Who may not raise the limit has none that allows a file.
		_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	}
}
