// Package profile writes where the CPU time and the memory of this process
// went, for `go tool pprof`.
package profile

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
)

// Start begins to record into the folder dir, which is made when it is
// missing. stop writes name.cpu.pprof and name.heap.pprof there; it may be
// called by several goroutines, all of which return when the files are
// written, with the same error. One recording runs at a time in a process.
func Start(dir, name string) (stop func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	cpu, err := os.Create(filepath.Join(dir, name+".cpu.pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		cpu.Close()
		return nil, err
	}
	return sync.OnceValue(func() error {
		pprof.StopCPUProfile()
		return errors.Join(cpu.Close(), heap(filepath.Join(dir, name+".heap.pprof")))
	}), nil
}

// heap writes what is allocated, and what was since the process began.
func heap(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	runtime.GC() // else what is in use is as of the last collection
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}
