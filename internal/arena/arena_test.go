//go:build linux

package arena_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/mailhaul/pipeline/internal/arena"
	"github.com/mailhaul/pipeline/pkg/fault"
	"golang.org/x/sys/unix"
)

// both maps an arena twice, as two processes do.
func both(t testing.TB, places int) (host, plugin *arena.Arena, file *os.File) {
	t.Helper()
	host, file, err := arena.New(places)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if plugin, err = arena.Open(fd); err != nil {
		t.Fatal(err)
	}
	return host, plugin, file
}

// What one side fills and sends the other reads, in both directions.
func TestThereAndBack(t *testing.T) {
	t.Parallel()
	host, plugin, _ := both(t, 2)
	host.Share()
	plugin.Share()
	for _, c := range []struct {
		name     string
		from, to *arena.Arena
	}{{"from the plugin", plugin, host}, {"from the host", host, plugin}} {
		t.Run(c.name, func(t *testing.T) {
			for turn := range 5 {
				p := c.from.Get()
				n := copy(p.Memory(), bytes.Repeat([]byte{byte('a' + turn)}, 100+turn))
				p.Send()
				held, got, err := c.to.Hold(p.Number, p.Turn, n)
				if err != nil || len(got) != n || got[0] != byte('a'+turn) || got[n-1] != byte('a'+turn) {
					t.Fatalf("turn %d: %d octets, %v", turn, len(got), err)
				}
				held.Done()
			}
		})
	}
}

// Nobody gets a place before the other side is known to map the memory, nor
// without an arena.
func TestNobodyShares(t *testing.T) {
	t.Parallel()
	host, _, _ := both(t, 2)
	if host.Get().OK() {
		t.Error("a place before Share")
	}
	if none := (*arena.Arena)(nil); none.Get().OK() {
		t.Error("a place without an arena")
	}
}

// A place is one's until it was read: with none left there is none, and each
// step gives back what it should.
func TestPlacesRunOut(t *testing.T) {
	t.Parallel()
	host, plugin, _ := both(t, 3)
	plugin.Share()
	var got []arena.Place
	for p := plugin.Get(); p.OK(); p = plugin.Get() {
		got = append(got, p)
	}
	if len(got) != 3 {
		t.Fatalf("%d places, want 3", len(got))
	}
	got[0].Free()
	got[1].Send()
	got[2].Send()
	held, _, err := host.Hold(got[2].Number, got[2].Turn, 1)
	if err != nil {
		t.Fatal(err)
	}
	if p := plugin.Get(); p.Number != got[0].Number || p.Turn != got[0].Turn+1 {
		t.Errorf("place %d in turn %d, want the one that was freed", p.Number, p.Turn)
	}
	if plugin.Get().OK() {
		t.Error("a place that was sent is given out")
	}
	held.Done()
	if p := plugin.Get(); p.Number != got[2].Number {
		t.Errorf("place %d, want the one that was read", p.Number)
	}
}

// A stream that is over takes back what nobody has read, and nothing else.
func TestReclaim(t *testing.T) {
	t.Parallel()
	host, plugin, _ := both(t, 4)
	plugin.Share()
	var turns arena.Turns
	unread, read, done := plugin.Get(), plugin.Get(), plugin.Get()
	for _, p := range []arena.Place{unread, read, done} {
		turns.Send(p)
	}
	held, _, err := host.Hold(read.Number, read.Turn, 1)
	if err != nil {
		t.Fatal(err)
	}
	over, _, err := host.Hold(done.Number, done.Turn, 1)
	if err != nil {
		t.Fatal(err)
	}
	over.Done()
	plugin.Get() // the fourth, or done's: another stream has it
	next := plugin.Get()
	next.Send()
	if n := turns.Unread(); n != 2 {
		t.Errorf("%d places aren't free, want the one that is being read and the one that isn't", n)
	}
	turns.Reclaim()
	if _, _, err := host.Hold(unread.Number, unread.Turn, 1); !fault.Is(err, fault.Bug) {
		t.Errorf("a frame that comes too late: %v", err)
	}
	if _, _, err := host.Hold(next.Number, next.Turn, 1); err != nil {
		t.Errorf("another stream's frame: %v", err)
	}
	if p := plugin.Get(); p.Number != unread.Number {
		t.Errorf("place %d, want %d", p.Number, unread.Number)
	}
	if plugin.Get().OK() {
		t.Error("a place that is being read was given out")
	}
	held.Done()
}

// Places that a frame may not name.
func TestHoldRefuses(t *testing.T) {
	t.Parallel()
	host, plugin, _ := both(t, 2)
	plugin.Share()
	p := plugin.Get()
	if _, _, err := host.Hold(p.Number, p.Turn, 1); !fault.Is(err, fault.Bug) {
		t.Errorf("one that wasn't sent: %v", err)
	}
	p.Send()
	for name, c := range map[string]struct {
		number, turn uint32
		n            int
	}{
		"no number":         {0, p.Turn, 1},
		"one too high":      {3, p.Turn, 1},
		"far too high":      {1 << 31, p.Turn, 1},
		"another turn":      {p.Number, p.Turn + 1, 1},
		"the same, wrapped": {p.Number, p.Turn + 1<<30, 1},
		"no octets":         {p.Number, p.Turn, 0},
		"too many octets":   {p.Number, p.Turn, arena.Size + 1},
		"fewer than none":   {p.Number, p.Turn, -1},
	} {
		if _, _, err := host.Hold(c.number, c.turn, c.n); !fault.Is(err, fault.Bug) {
			t.Errorf("%s: %v", name, err)
		}
	}
	held, _, err := host.Hold(p.Number, p.Turn, arena.Size)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := host.Hold(p.Number, p.Turn, 1); !fault.Is(err, fault.Bug) {
		t.Errorf("twice: %v", err)
	}
	held.Done()
	if _, _, err := (*arena.Arena)(nil).Hold(1, 1, 1); !fault.Is(err, fault.Bug) {
		t.Errorf("without an arena: %v", err)
	}
}

// Many goroutines of one side never get the same place, and what they write
// arrives whole.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	host, plugin, _ := both(t, 8)
	plugin.Share()
	type named struct {
		number, turn uint32
		n            int
		seed         uint64
	}
	frames := make(chan named, 4)
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range 500 {
				p := plugin.Get()
				for !p.OK() {
					runtime.Gosched()
					p = plugin.Get()
				}
				n, seed := 8+8*r.IntN(500), r.Uint64()
				for i, m := 0, p.Memory(); i < n; i += 8 {
					binary.LittleEndian.PutUint64(m[i:], seed+uint64(i))
				}
				p.Send()
				frames <- named{p.Number, p.Turn, n, seed}
			}
		})
	}
	go func() {
		writers.Wait()
		close(frames)
	}()
	for f := range frames {
		p, b, err := host.Hold(f.number, f.turn, f.n)
		if err != nil {
			t.Error(err)
			continue
		}
		for i := 0; i < f.n; i += 8 {
			if binary.LittleEndian.Uint64(b[i:]) != f.seed+uint64(i) {
				t.Errorf("place %d in turn %d is spoilt at %d", f.number, f.turn, i)
				break
			}
		}
		p.Done()
	}
}

// A plugin can't take the memory away from under the host, which would end it
// by a signal.
func TestMemoryCannotBeCut(t *testing.T) {
	t.Parallel()
	_, _, file := both(t, 1)
	if err := file.Truncate(0); err == nil {
		t.Error("the file was cut")
	}
	if err := file.Truncate(1 << 30); err == nil {
		t.Error("the file grew")
	}
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err == nil {
		t.Error("the file was sealed further")
	}
}

// A plugin that writes anything into the words harms nobody but itself.
func TestWordsOfAnybody(t *testing.T) {
	t.Parallel()
	host, _, file := both(t, 2)
	host.Share()
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var word [4]byte
		binary.NativeEndian.PutUint32(word[:], r.Uint32N(40))
		if _, err := file.WriteAt(word[:], 64*r.Int64N(4)); err != nil {
			t.Fatal(err)
		}
		if p := host.Get(); p.OK() {
			copy(p.Memory(), "hello")
			p.Send()
		}
		if held, b, err := host.Hold(r.Uint32N(4), r.Uint32N(10), arena.Size); err == nil {
			_ = bytes.Count(b, []byte{0})
			held.Done()
		}
	}
}

// What isn't an arena isn't mapped.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, octets := range []int64{0, 1, 8192, 8192 + arena.Size, 8192 + 2*arena.Size - 1, 8192 + 2*(arena.Most+1)*arena.Size} {
		if err := file.Truncate(octets); err != nil {
			t.Fatal(err)
		}
		fd, err := syscall.Dup(int(file.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := arena.Open(fd); !fault.Is(err, fault.Bug) {
			t.Errorf("%d octets: %v", octets, err)
		}
	}
	if _, err := arena.Open(9999); !fault.Is(err, fault.Bug) {
		t.Errorf("no file: %v", err)
	}
}
