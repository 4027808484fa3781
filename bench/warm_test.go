package bench

import (
	"math/rand/v2"
	"runtime/debug"
)

// warm has the machine's memory that a run of w needs used just before it, by
// us. A virtual machine may give free pages back to its host, and getting one
// again costs many times what a page costs that was just freed: whoever ran
// after a pause would pay for all.
func warm(w Workload) {
	octets, r := 0, rand.New(rand.NewPCG(1, 1))
	for range all(w) {
		octets += 2*w.Size(r) + 20<<10 // the file, what is on its way, and what the kernel keeps of it
	}
	b := make([]byte, octets)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	debug.FreeOSMemory()
}
