package bench

import (
	"math/rand/v2"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// warm makes the machine the same for whoever runs next. What the one before
// left to be written is written first. And the memory that a run of w needs is
// used just before it, by us: a virtual machine may give free pages back to its
// host, and getting one again costs many times what a page costs that was just
// freed, so that whoever ran after a pause would pay for all.
func warm(w Workload) {
	unix.Sync()
	octets, r := 0, rand.New(rand.NewPCG(1, 1))
	for range all(w) {
		// The file, what is on its way and what the kernel keeps of it; and more,
		// as the kernel also hands out pages that weren't among ours.
		octets += 3*w.Size(r) + 20<<10
	}
	b := make([]byte, octets)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	debug.FreeOSMemory()
}
