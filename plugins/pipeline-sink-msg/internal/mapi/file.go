// Package mapi writes messages as property storages in a compound file
// (MS-OXMSG): the bags of properties of the message, its recipients and its
// attachments, messages within messages, and the map of named properties. It
// knows how a property is stored, not what it means.
package mapi

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/cfb"
)

// Limit is how many recipients, and how many attachments, a message may have
// (MS-OXMSG §2.2.1, §2.2.2).
const Limit = 2048

// classID is the class of the root storage of every .msg, as Outlook writes it.
var classID = [16]byte{0x0B, 0x0D, 0x02, 0, 0, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0x46}

// File is one .msg in the making. Fill Message, then call WriteTo. It may be
// used again after Reset, and keeps its memory; it is for one goroutine.
type File struct {
	file    *cfb.File
	root    *Object
	named   namedProperties
	chunk   []byte    // arena of values; never grown in place
	objects []*Object // all ever made, used again
	used    int
	done    bool
}

// NewFile returns an empty file.
func NewFile() *File {
	f := &File{file: cfb.New()}
	f.Reset()
	return f
}

// Reset makes the file empty again. Every Object of it, and everything it was
// given, is forgotten.
func (f *File) Reset() {
	f.file.Reset()
	f.named.reset()
	f.chunk = f.chunk[:0]
	for _, o := range f.objects[:f.used] {
		clear(o.props)
		o.props = o.props[:0]
		o.recipients, o.attachments = o.recipients[:0], o.attachments[:0]
	}
	f.used, f.done = 0, false
	f.root = f.object(rootHeader)
}

// Message returns the message itself.
func (f *File) Message() *Object { return f.root }

// Size returns how long the file will be in octets, an error when it can't be
// made. Nothing may be added afterwards.
func (f *File) Size() (int64, error) {
	if err := f.finish(); err != nil {
		return 0, err
	}
	return f.file.Size()
}

// WriteTo writes the file. Nothing is written when it can't be made:
// cfb.ErrTooLarge.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	if err := f.finish(); err != nil {
		return 0, err
	}
	return f.file.WriteTo(w)
}

func (f *File) finish() error {
	if !f.done {
		f.done = true
		f.file.SetClass(cfb.Root, classID)
		f.named.write(f)
		f.write(f.root, cfb.Root)
	}
	return f.file.Err()
}

func (f *File) object(header int) *Object {
	if f.used == len(f.objects) {
		f.objects = append(f.objects, &Object{f: f})
	}
	o := f.objects[f.used]
	f.used++
	o.header = header
	return o
}

const chunkSize = 64 << 10

// Alloc returns n octets of the file's own memory, with unknown contents, for
// Binary.
func (f *File) Alloc(n int) []byte { return f.alloc(n) }

func (f *File) alloc(n int) []byte {
	if cap(f.chunk)-len(f.chunk) < n {
		if n > chunkSize/4 {
			return make([]byte, n)
		}
		f.chunk = make([]byte, 0, chunkSize)
	}
	at := len(f.chunk)
	f.chunk = f.chunk[:at+n]
	return f.chunk[at : at+n : at+n]
}

// The length of the header of a property stream, by what it belongs to
// (MS-OXMSG §2.4.1).
const (
	rootHeader     = 32
	embeddedHeader = 24
	partHeader     = 8
)

// write puts o's properties and storages into s. Names are added in the
// order that the directory wants, which spares it the sorting.
func (f *File) write(o *Object, s cfb.Storage) {
	slices.SortStableFunc(o.props, func(a, b property) int { return int(a.tag>>16) - int(b.tag>>16) })
	// What was set last counts.
	kept := o.props[:0]
	for i, p := range o.props {
		if i+1 < len(o.props) && o.props[i+1].tag>>16 == p.tag>>16 {
			continue
		}
		kept = append(kept, p)
	}
	o.props = kept

	for i := range o.props {
		p := &o.props[i]
		if p.tag&0xFFFF == ptObject {
			var buf [20]byte
			f.write(p.more.object, f.file.AddStorage(s, streamName(&buf, p.tag)))
			continue
		}
		if fixedSize(p.tag) {
			continue
		}
		var buf [20]byte
		name := streamName(&buf, p.tag)
		if p.more != nil && p.more.write != nil {
			f.file.AddStreamFunc(s, name, p.more.size, p.more.write)
		} else {
			f.file.AddStream(s, name, p.data)
		}
	}
	f.file.AddStream(s, "__properties_version1.0", f.propertyStream(o))
	for i, r := range o.recipients {
		var buf [28]byte
		copy(buf[:], "__recip_version1.0_#")
		hex(buf[20:], uint32(i))
		f.write(r, f.file.AddStorage(s, string(buf[:])))
	}
	for i, a := range o.attachments {
		var buf [29]byte
		copy(buf[:], "__attach_version1.0_#")
		hex(buf[21:], uint32(i))
		f.write(a, f.file.AddStorage(s, string(buf[:])))
	}
	for i := range o.props {
		p := &o.props[i]
		if p.more == nil {
			continue
		}
		for j, v := range p.more.values {
			f.file.AddStream(s, fmt.Sprintf("__substg1.0_%08X-%08X", p.tag, j), v)
		}
	}
}

// propertyStream returns MS-OXMSG §2.4.
func (f *File) propertyStream(o *Object) []byte {
	b := f.alloc(o.header + 16*len(o.props))
	clear(b[:o.header])
	if o.header >= embeddedHeader {
		r, a := uint32(len(o.recipients)), uint32(len(o.attachments))
		binary.LittleEndian.PutUint32(b[8:], r)
		binary.LittleEndian.PutUint32(b[12:], a)
		binary.LittleEndian.PutUint32(b[16:], r)
		binary.LittleEndian.PutUint32(b[20:], a)
	}
	at := b[o.header:]
	for i := range o.props {
		p := &o.props[i]
		binary.LittleEndian.PutUint32(at, p.tag)
		binary.LittleEndian.PutUint32(at[4:], flagReadable|flagWritable)
		binary.LittleEndian.PutUint64(at[8:], p.value)
		at = at[16:]
	}
	return b
}

const (
	flagReadable = 2
	flagWritable = 4
)

func streamName(buf *[20]byte, tag uint32) string {
	copy(buf[:], "__substg1.0_")
	hex(buf[12:], tag)
	return string(buf[:])
}

func hex(b []byte, v uint32) {
	for i := 7; i >= 0; i-- {
		b[i] = "0123456789ABCDEF"[v&15]
		v >>= 4
	}
}
