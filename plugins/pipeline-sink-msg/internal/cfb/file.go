// Package cfb writes compound files: the little file system of storages and
// streams that holds every .msg (MS-CFB). It writes version 3 files (512-octet
// sectors) front to back over a plain io.Writer, in one pass, with the sizes
// known before; a big stream is never held in memory. It knows nothing of mail.
package cfb

import (
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
)

// MaxSize is the largest file that is written, in octets: the range lock
// sector of a version 3 file lies behind it (MS-CFB §2.1), and readers with
// 31-bit offsets end there.
const MaxSize = 0x7FFFFF00

// MiniCutoff is the size in octets below which a stream lives in the mini
// stream (MS-CFB §2.2).
const MiniCutoff = 4096

const (
	sectorSize = 512
	miniSize   = 64
	perSector  = sectorSize / 4 // FAT entries of a sector
	headDIFAT  = 109            // DIFAT entries in the header
	dirSize    = 128            // a directory entry

	freeSect   = 0xFFFFFFFF
	endOfChain = 0xFFFFFFFE
	fatSect    = 0xFFFFFFFD
	difSect    = 0xFFFFFFFC
)

// ErrTooLarge says that the file would pass MaxSize. It is found before the
// first octet is written.
var ErrTooLarge = errors.New("a compound file of version 3 ends at 2 GiB")

// Storage names a storage of one File.
type Storage int32

// Root is the storage that every file has.
const Root Storage = 0

const (
	kindStorage = 1
	kindStream  = 2
	kindRoot    = 5
)

type entry struct {
	name  [32]uint16 // with at least one NUL behind
	units uint8      // without the NUL
	kind  uint8
	red   bool
	clsid [16]byte
	data  []byte
	write func(io.Writer) error
	size  int64
	start uint32

	first, last, next  int32 // children in the order they were added; -1: none
	left, right, child uint32
}

// File is a compound file in the making. Add storages and streams, then call
// WriteTo. A File may be used again after Reset, and keeps its memory. It is
// for one goroutine.
type File struct {
	entries []entry
	order   []int32 // scratch of sorting
	out     []byte  // output buffer
	err     error
}

// New returns an empty file.
func New() *File {
	f := &File{out: make([]byte, 0, 64<<10)}
	f.Reset()
	return f
}

// Reset makes the file empty again, and forgets the data it was given.
func (f *File) Reset() {
	clear(f.entries)
	f.entries = f.entries[:0]
	f.err = nil
	f.add(-1, "Root Entry", kindRoot)
}

// Err returns the first thing that was wrong with a name.
func (f *File) Err() error { return f.err }

// SetClass sets the class id of a storage, in the byte order of the file.
func (f *File) SetClass(s Storage, clsid [16]byte) { f.entries[s].clsid = clsid }

// AddStorage adds an empty storage.
func (f *File) AddStorage(parent Storage, name string) Storage {
	return Storage(f.add(int32(parent), name, kindStorage))
}

// AddStream adds a stream with the octets of data, which it keeps until the
// file is written.
func (f *File) AddStream(parent Storage, name string, data []byte) {
	i := f.add(int32(parent), name, kindStream)
	f.entries[i].data, f.entries[i].size = data, int64(len(data))
}

// AddStreamFunc adds a stream of exactly size octets, which write is asked
// for when the file gets there. More or fewer octets are an error of WriteTo.
func (f *File) AddStreamFunc(parent Storage, name string, size int64, write func(io.Writer) error) {
	i := f.add(int32(parent), name, kindStream)
	f.entries[i].write, f.entries[i].size = write, size
}

// Entries returns how many storages and streams there are, with the root.
func (f *File) Entries() int { return len(f.entries) }

func (f *File) add(parent int32, name string, kind uint8) int32 {
	i := int32(len(f.entries))
	f.entries = append(f.entries, entry{kind: kind, first: -1, last: -1, next: -1})
	e := &f.entries[i]
	f.setName(e, name)
	if parent >= 0 {
		p := &f.entries[parent]
		if p.last < 0 {
			p.first = i
		} else {
			f.entries[p.last].next = i
		}
		p.last = i
	}
	return i
}

// setName stores the name: 1 to 31 UTF-16 units without / \ : and ! (MS-CFB
// §2.6.1).
func (f *File) setName(e *entry, name string) {
	n := 0
	for _, r := range name {
		if r == '/' || r == '\\' || r == ':' || r == '!' || r == 0 {
			f.fail("the name %q of a stream or storage has the forbidden character %q", name, r)
			return
		}
		need := 1
		if r > 0xFFFF {
			need = 2
		}
		if n+need > 31 {
			f.fail("the name %q of a stream or storage is longer than 31 UTF-16 units", name)
			return
		}
		if need == 2 {
			hi, lo := utf16.EncodeRune(r)
			e.name[n], e.name[n+1] = uint16(hi), uint16(lo)
		} else {
			e.name[n] = uint16(r)
		}
		n += need
	}
	if n == 0 {
		f.fail("a stream or storage has no name")
	}
	e.units = uint8(n)
}

func (f *File) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

// compare orders siblings: the shorter name first, then by upper-cased UTF-16
// units (MS-CFB §2.6.4). Windows finds elements by this order.
func compare(a, b *entry) int {
	if a.units != b.units {
		return int(a.units) - int(b.units)
	}
	for i := range a.units {
		if a.name[i] == b.name[i] {
			continue
		}
		if x, y := upper(a.name[i]), upper(b.name[i]); x != y {
			return int(x) - int(y)
		}
	}
	return 0
}

func upper(u uint16) uint16 {
	if u < 0x80 {
		if 'a' <= u && u <= 'z' {
			u -= 'a' - 'A'
		}
		return u
	}
	if r := unicode.ToUpper(rune(u)); r <= 0xFFFF {
		return uint16(r)
	}
	return u
}
