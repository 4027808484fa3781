// Package headroom spares a process most of its garbage collections.
package headroom

import (
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// size is how much memory is counted as in use and isn't.
	size = 40 << 20
	// percent is how much garbage may gather, of what is in use: less than
	// half of Go's own, so that a process that holds 50 MB of messages grows
	// by 20, not by as much again (I5).
	percent = 40
)

// Room is memory that is never touched: the system never gives it, but the
// collector counts it as in use, and so lets some more garbage gather on top
// before it runs. A live heap of 3 MB is else collected every 3 MB, which is
// every few hundred messages. A higher GOGC would multiply a large heap as
// well, and a memory limit would have one that is near it collected all the
// time; this adds the same to all.
type Room struct{ octets []byte }

// New returns the room, and has the collector go by it; none where the user
// has set GOGC or GOMEMLIMIT, who then knows better. It lasts until Keep is
// called.
func New() Room {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return Room{}
	}
	debug.SetGCPercent(percent)
	return Room{make([]byte, size)}
}

// Keep keeps the room up to here.
func (r Room) Keep() { runtime.KeepAlive(r.octets) }
