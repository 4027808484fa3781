package cfb

import (
	"encoding/binary"
	"fmt"
	"io"
)

// layout is where everything lies, in sectors, in this order: FAT, DIFAT,
// directory, mini FAT, mini stream, big streams.
type layout struct {
	fat, dif, dir, miniFAT, mini, big int64 // counts
	miniOctets                        int64
}

func ceil(n, unit int64) int64 { return (n + unit - 1) / unit }

// plan computes the layout and gives each stream its first sector.
func (f *File) plan() (layout, error) {
	var l layout
	l.dir = ceil(int64(len(f.entries))*dirSize, sectorSize)
	miniSectors := int64(0)
	for i := range f.entries {
		e := &f.entries[i]
		switch {
		case e.kind != kindStream:
		case e.size < 0 || e.size > MaxSize:
			return l, ErrTooLarge
		case e.size == 0:
			// MS-CFB §2.6.3: strict readers refuse anything else here.
			e.start = endOfChain
		case e.size < MiniCutoff:
			e.start = uint32(miniSectors)
			miniSectors += ceil(e.size, miniSize)
		default:
			l.big += ceil(e.size, sectorSize)
		}
	}
	l.miniOctets = miniSectors * miniSize
	l.miniFAT = ceil(miniSectors*4, sectorSize)
	l.mini = ceil(l.miniOctets, sectorSize)
	rest := l.dir + l.miniFAT + l.mini + l.big
	for {
		fat := ceil(rest+l.fat+l.dif, perSector)
		dif := ceil(max(fat-headDIFAT, 0), perSector-1)
		if fat == l.fat && dif == l.dif {
			break
		}
		l.fat, l.dif = fat, dif
	}
	if (1+l.fat+l.dif+rest)*sectorSize > MaxSize {
		return l, ErrTooLarge
	}
	at := l.bigStart()
	for i := range f.entries {
		if e := &f.entries[i]; e.kind == kindStream && e.size >= MiniCutoff {
			e.start = uint32(at)
			at += ceil(e.size, sectorSize)
		}
	}
	root := &f.entries[0]
	root.size, root.start = l.miniOctets, endOfChain
	if l.miniOctets > 0 {
		root.start = uint32(l.miniStart())
	}
	return l, nil
}

func (l layout) dirStart() int64     { return l.fat + l.dif }
func (l layout) miniFATStart() int64 { return l.dirStart() + l.dir }
func (l layout) miniStart() int64    { return l.miniFATStart() + l.miniFAT }
func (l layout) bigStart() int64     { return l.miniStart() + l.mini }
func (l layout) sectors() int64      { return l.bigStart() + l.big }

// Size returns how long the file will be, in octets.
func (f *File) Size() (int64, error) {
	l, err := f.plan()
	return (1 + l.sectors()) * sectorSize, err
}

// WriteTo writes the file and returns its length. Nothing is written when the
// file can't be made: see ErrTooLarge and Err. Errors of the writer and of the
// functions given to AddStreamFunc come back wrapped.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	f.link()
	if f.err != nil {
		return 0, f.err
	}
	l, err := f.plan()
	if err != nil {
		return 0, err
	}
	o := &output{w: w, buf: f.out[:0]}
	f.header(o, l)
	f.writeFAT(o, l)
	f.directory(o, l)
	f.writeMiniFAT(o)
	for i := range f.entries {
		if e := &f.entries[i]; e.kind == kindStream && e.size < MiniCutoff {
			if err := o.stream(e, miniSize); err != nil {
				return o.n, err
			}
		}
	}
	o.pad(sectorSize)
	for i := range f.entries {
		if e := &f.entries[i]; e.kind == kindStream && e.size >= MiniCutoff {
			if err := o.stream(e, sectorSize); err != nil {
				return o.n, err
			}
		}
	}
	o.flush()
	f.out = o.buf[:0]
	return o.n, o.err
}

// header writes MS-CFB §2.2.
func (f *File) header(o *output, l layout) {
	o.bytes([]byte{0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1})
	o.zero(16)
	o.u16(0x3E)
	o.u16(3)
	o.u16(0xFFFE)
	o.u16(9)
	o.u16(6)
	o.zero(6)
	o.u32(0)
	o.u32(uint32(l.fat))
	o.u32(uint32(l.dirStart()))
	o.u32(0)
	o.u32(MiniCutoff)
	if l.miniFAT > 0 {
		o.u32(uint32(l.miniFATStart()))
	} else {
		o.u32(endOfChain)
	}
	o.u32(uint32(l.miniFAT))
	if l.dif > 0 {
		o.u32(uint32(l.fat))
	} else {
		o.u32(endOfChain)
	}
	o.u32(uint32(l.dif))
	for i := range int64(headDIFAT) {
		if i < l.fat {
			o.u32(uint32(i))
		} else {
			o.u32(freeSect)
		}
	}
}

// writeFAT writes the FAT and, past 109 sectors of it, the DIFAT. Every chain
// is a run of sectors in order.
func (f *File) writeFAT(o *output, l layout) {
	at := uint32(0)
	run := func(n int64) {
		for ; n > 1; n-- {
			at++
			o.u32(at)
		}
		if n == 1 {
			at++
			o.u32(endOfChain)
		}
	}
	for range l.fat {
		o.u32(fatSect)
	}
	for range l.dif {
		o.u32(difSect)
	}
	at = uint32(l.dirStart())
	run(l.dir)
	run(l.miniFAT)
	run(l.mini)
	for i := range f.entries {
		if e := &f.entries[i]; e.kind == kindStream && e.size >= MiniCutoff {
			run(ceil(e.size, sectorSize))
		}
	}
	for n := l.sectors(); n < l.fat*perSector; n++ {
		o.u32(freeSect)
	}
	next := int64(headDIFAT)
	for d := range l.dif {
		for range perSector - 1 {
			if next < l.fat {
				o.u32(uint32(next))
			} else {
				o.u32(freeSect)
			}
			next++
		}
		if d+1 < l.dif {
			o.u32(uint32(l.fat + d + 1))
		} else {
			o.u32(endOfChain)
		}
	}
}

// directory writes MS-CFB §2.6. Times stay zero: the same tree is the same
// file.
func (f *File) directory(o *output, l layout) {
	for i := range f.entries {
		e := &f.entries[i]
		o.room(dirSize)
		b := o.buf[len(o.buf) : len(o.buf)+dirSize]
		clear(b)
		for j, u := range e.name[:e.units] {
			binary.LittleEndian.PutUint16(b[2*j:], u)
		}
		binary.LittleEndian.PutUint16(b[64:], uint16(e.units)*2+2)
		b[66] = e.kind
		if !e.red {
			b[67] = 1
		}
		binary.LittleEndian.PutUint32(b[68:], e.left)
		binary.LittleEndian.PutUint32(b[72:], e.right)
		binary.LittleEndian.PutUint32(b[76:], e.child)
		copy(b[80:], e.clsid[:])
		binary.LittleEndian.PutUint32(b[116:], e.start)
		binary.LittleEndian.PutUint32(b[120:], uint32(e.size))
		o.buf = o.buf[:len(o.buf)+dirSize]
		o.n += dirSize
	}
	for i := int64(len(f.entries)); i < l.dir*(sectorSize/dirSize); i++ {
		o.zero(68)
		for range 3 {
			o.u32(freeSect)
		}
		o.zero(48)
	}
}

func (f *File) writeMiniFAT(o *output) {
	at := uint32(0)
	for i := range f.entries {
		e := &f.entries[i]
		if e.kind != kindStream || e.size >= MiniCutoff {
			continue
		}
		n := ceil(e.size, miniSize)
		for ; n > 1; n-- {
			at++
			o.u32(at)
		}
		if n == 1 {
			at++
			o.u32(endOfChain)
		}
	}
	for ; at%perSector != 0; at++ {
		o.u32(freeSect)
	}
}

// output gathers small writes. Its first error sticks.
type output struct {
	w   io.Writer
	buf []byte
	n   int64 // octets that went to w or wait in buf
	err error
}

func (o *output) room(n int) {
	if cap(o.buf)-len(o.buf) < n {
		o.flush()
	}
}

func (o *output) flush() {
	if o.err == nil && len(o.buf) > 0 {
		_, o.err = o.w.Write(o.buf)
	}
	o.buf = o.buf[:0]
}

func (o *output) u16(v uint16) {
	o.room(2)
	o.buf = binary.LittleEndian.AppendUint16(o.buf, v)
	o.n += 2
}

func (o *output) u32(v uint32) {
	o.room(4)
	o.buf = binary.LittleEndian.AppendUint32(o.buf, v)
	o.n += 4
}

func (o *output) bytes(b []byte) {
	o.n += int64(len(b))
	if len(b) >= cap(o.buf) {
		o.flush()
		if o.err == nil {
			_, o.err = o.w.Write(b)
		}
		return
	}
	o.room(len(b))
	o.buf = append(o.buf, b...)
}

var zeros [sectorSize]byte

func (o *output) zero(n int) { o.bytes(zeros[:n]) }

func (o *output) pad(unit int64) {
	if r := o.n % unit; r != 0 {
		o.zero(int(unit - r))
	}
}

// Write takes what a stream's function has to say.
func (o *output) Write(p []byte) (int, error) {
	o.bytes(p)
	return len(p), o.err
}

func (o *output) stream(e *entry, unit int64) error {
	if e.write == nil {
		o.bytes(e.data)
	} else {
		before := o.n
		if err := e.write(o); err != nil {
			return fmt.Errorf("write a stream of a compound file: %w", err)
		}
		if got := o.n - before; got != e.size {
			return fmt.Errorf("write a stream of a compound file: %d octets were announced, %d came", e.size, got)
		}
	}
	o.pad(unit)
	return o.err
}
