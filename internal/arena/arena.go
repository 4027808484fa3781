// Package arena is memory that a host and one of its plugin processes both
// map. Bodies lie there while frames name the place, so that the kernel doesn't
// copy them through a socket.
//
// The memory begins with a word for each place, and is divided in two: places
// that the host fills and the plugin reads, and the other way round. Whoever
// fills takes a free place, and whoever reads frees it; nobody waits. Where no
// place is free, the octets go in the frame as ever.
//
// A word holds the place's turn, which goes up each time that it is filled,
// and its state. Both sides change it by compare-and-swap alone. So a frame
// that comes too late finds that its turn is over, and nobody frees what
// another has filled since. What the other process does with the words or the
// octets can spoil messages, which their sums show; it can't make this one
// touch memory that isn't there.
package arena

import (
	"sync/atomic"
	"unsafe"

	"github.com/mailhaul/pipeline/pkg/fault"
)

const (
	// Size is how many octets a place has room for.
	Size = 256 << 10
	// Most is how many places one side may fill.
	Most = 64

	stride = 64   // octets between words: a cache line each
	table  = 8192 // octets of all words: two sides of Most
)

// The states of a place, the two lowest bits of its word. The rest is its
// turn.
const (
	free   = iota
	filled // by the one side, which hasn't sent it
	sent   // in a frame that the other side hasn't read
	held   // by the other side
	states
)

// turns is where turns begin anew.
const turns = 1 << 30

// Arena is one process's view of the memory. It is safe for concurrent use.
type Arena struct {
	memory []byte
	places int  // of each side
	plugin bool // we are the plugin
	shared atomic.Bool
}

// Share says that the other side maps the memory too: before, Get gives
// nothing.
func (a *Arena) Share() { a.shared.Store(true) }

// Place is a piece of the memory that this side fills or reads. The zero Place
// is none.
type Place struct {
	a      *Arena
	Number uint32 // from 1
	Turn   uint32
}

// OK reports whether p is a place.
func (p Place) OK() bool { return p.a != nil }

// Get returns a free place of those that this side fills, or none. a may be
// nil. Send or Free must follow.
func (a *Arena) Get() Place {
	if a == nil || !a.shared.Load() {
		return Place{}
	}
	for n := range a.places {
		number := uint32(n + 1)
		w := a.word(a.plugin, number)
		now := w.Load()
		if turn := (now/states + 1) % turns; now%states == free && w.CompareAndSwap(now, turn*states+filled) {
			return Place{a, number, turn}
		}
	}
	return Place{}
}

// Memory returns the Size octets of a place that Get gave. They are the
// caller's until Send or Free.
func (p Place) Memory() []byte { return p.a.octets(p.a.plugin, p.Number) }

// Send says that a frame goes out that names the place: it is the other side's.
func (p Place) Send() { p.move(p.a.plugin, filled, sent) }

// Free gives back a place that wasn't sent.
func (p Place) Free() { p.move(p.a.plugin, filled, free) }

// Reclaim takes back a place that was sent in a stream that is over, if the
// other side hasn't read the frame. One that has frees it.
func (p Place) Reclaim() { p.move(p.a.plugin, sent, free) }

// Hold returns the first n octets of a place that a frame from the other side
// names. Done must follow.
func (a *Arena) Hold(number, turn uint32, n int) (Place, []byte, error) {
	if a == nil {
		return Place{}, nil, fault.New(fault.Bug, "a frame names a place in shared memory, and none is shared")
	}
	if number < 1 || number > uint32(a.places) || turn >= turns || n < 1 || n > Size {
		return Place{}, nil, fault.New(fault.Bug, "a frame names %d octets of place %d in shared memory, which has %d of %d octets", n, number, a.places, Size)
	}
	p := Place{a, number, turn}
	if !p.move(!a.plugin, sent, held) {
		return Place{}, nil, fault.New(fault.Bug, "a frame names place %d of shared memory, which isn't its own any more", number)
	}
	return p, a.octets(!a.plugin, number)[:n], nil
}

// Done frees a place that was held.
func (p Place) Done() { p.move(!p.a.plugin, held, free) }

// busy reports whether a place that was sent isn't free yet.
func (p Place) busy() bool {
	now := p.a.word(p.a.plugin, p.Number).Load()
	return now/states == p.Turn && now%states != free
}

// move changes the state of a place that is still in its turn.
func (p Place) move(plugin bool, from, to uint32) bool {
	return p.a.word(plugin, p.Number).CompareAndSwap(p.Turn*states+from, p.Turn*states+to)
}

// word returns the word of a place that the plugin fills, or the host.
func (a *Arena) word(plugin bool, number uint32) *atomic.Uint32 {
	at := a.index(plugin, number) * stride
	return (*atomic.Uint32)(unsafe.Pointer(&a.memory[at : at+stride][0]))
}

func (a *Arena) octets(plugin bool, number uint32) []byte {
	at := table + a.index(plugin, number)*Size
	return a.memory[at : at+Size : at+Size]
}

func (a *Arena) index(plugin bool, number uint32) int {
	if plugin {
		return int(number) - 1
	}
	return a.places + int(number) - 1
}

// size returns how many octets an arena of so many places a side has.
func size(places int) int { return table + 2*places*Size }

// placesOf returns how many places a side has in so many octets, and whether
// that is an arena.
func placesOf(octets int64) (int, bool) {
	n := (octets - table) / (2 * Size)
	return int(n), n >= 1 && n <= Most && octets == int64(size(int(n)))
}
