package target

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Large files are written past the page cache (O_DIRECT): what the kernel
// spends on a page, to find it, fill it, write it back and forget it, is more
// than all else that we do for those octets, and nobody reads them again soon.
// See docs/adr/0019-direct-writes.md.
const (
	// directLeast is the fewest octets of a write that begins that, directMore of
	// one that goes on with it. Below 128 KiB a file's first write costs more than
	// the page cache, as the file system must find its blocks at once.
	directLeast = 128 << 10
	directMore  = 16 << 10
	// directBlock is what offset, length and memory of such a write are a
	// multiple of: no device in use has larger blocks than a page (open(2)).
	directBlock = 4096
	// bounceSize is how many octets are brought to aligned memory at a time.
	bounceSize = 256 << 10
)

// direct writes to files past the page cache, where the file system takes it.
type direct struct {
	on     atomic.Bool
	bounce sync.Pool // of *[]byte, aligned
}

// goesDirect reports whether the file system writes past the page cache by the
// same rules as through it. Btrfs would leave out compression, on tmpfs there
// is nothing else than the cache, and network file systems aren't tried.
func goesDirect(kind uint32) bool {
	return kind == unix.EXT4_SUPER_MAGIC || kind == unix.XFS_SUPER_MAGIC
}

// write writes as much of p, which goes to an offset, as can go past the cache,
// and returns how much that was. What is left goes through it.
func (d *direct) write(h *handle, at int64, p []byte) (int, error) {
	whole, least := len(p)&^(directBlock-1), directLeast
	if h.direct {
		least = directMore
	}
	if len(p) < least || at%directBlock != 0 || !d.on.Load() {
		whole = 0
	}
	if !d.set(h, whole > 0) {
		return 0, nil
	}
	done := 0
	for done < whole {
		n, err := d.piece(h.fd, p[done:whole])
		if errors.Is(err, unix.EINVAL) { // alignment that only the device knows
			d.on.Store(false)
			d.set(h, false)
			return done, nil
		}
		if err != nil {
			return done, err
		}
		done += n
		if n%directBlock != 0 {
			break
		}
	}
	if done < len(p) {
		d.set(h, false)
	}
	return done, nil
}

// piece is one write of octets whose number is a multiple of a block.
func (d *direct) piece(fd int, p []byte) (int, error) {
	if uintptr(unsafe.Pointer(unsafe.SliceData(p)))%directBlock == 0 {
		return retry(func() (int, error) { return unix.Write(fd, p) })
	}
	b, _ := d.bounce.Get().(*[]byte)
	if b == nil {
		b = aligned(bounceSize)
	}
	defer d.bounce.Put(b)
	n := copy(*b, p)
	return retry(func() (int, error) { return unix.Write(fd, (*b)[:n]) })
}

// set says whether the file's next write goes past the cache, and reports
// whether it does.
func (d *direct) set(h *handle, on bool) bool {
	if h.direct == on {
		return on
	}
	flags := 0
	if on {
		flags = unix.O_DIRECT
	}
	if _, err := unix.FcntlInt(uintptr(h.fd), unix.F_SETFL, flags); err != nil {
		d.on.Store(false)
		return false
	}
	h.direct = on
	return on
}

// aligned returns memory that begins at a multiple of a block.
func aligned(n int) *[]byte {
	b := make([]byte, n+directBlock)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % directBlock
	b = b[skip:][:n:n]
	return &b
}
