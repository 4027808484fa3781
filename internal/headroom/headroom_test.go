package headroom_test

import (
	"runtime"
	"testing"

	"github.com/mailhaul/pipeline/internal/headroom"
)

// The heap of the whole process is looked at: no t.Parallel.
func TestNew(t *testing.T) {
	for _, c := range []struct {
		name, gogc, limit string
		more              uint64
	}{
		{name: "as it is", more: 40 << 20},
		{name: "GOGC is set", gogc: "100"},
		{name: "GOMEMLIMIT is set", limit: "1GiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("GOGC", c.gogc)
			t.Setenv("GOMEMLIMIT", c.limit)
			before := inUse()
			room := headroom.New()
			after := inUse()
			room.Keep()
			if more := after - min(before, after); (more+1<<19)>>20 != c.more>>20 {
				t.Errorf("the collector counts %d octets more, want %d", more, c.more)
			}
		})
	}
}

// inUse is what the collector counts as live.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
