package wire

import (
	"hash/crc32"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// MaxFrame is the most octets of data in one frame. A message isn't bounded:
// it takes as many frames as it needs.
const MaxFrame = 256 << 10

// maxEvents is the most octets of encoded events that a frame gathers before
// it is closed, a bound on headers as MaxFrame is on data. One event may be
// larger: it then has a frame of its own.
const maxEvents = 128 << 10

// maxReceive is the largest message that either side accepts: a frame whose
// events hold a header and structure as large as a hostile mail can make
// them.
const maxReceive = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Numbers of the fields of pluginpb.Frame and Event, which Frame writes and
// Inbound reads by hand: the generated code would copy the data.
const (
	fieldCRC     protowire.Number = 1
	fieldEvents  protowire.Number = 2
	fieldError   protowire.Number = 3
	fieldSession protowire.Number = 4
	fieldPieces  protowire.Number = 5
	fieldData    protowire.Number = 15

	fieldBegin protowire.Number = 1
	fieldBody  protowire.Number = 2
	fieldEnd   protowire.Number = 3
	fieldFail  protowire.Number = 4
	fieldLanes protowire.Number = 5
	fieldPull  protowire.Number = 6
	fieldSum   protowire.Number = 7

	fieldOctets protowire.Number = 1
	fieldPlace  protowire.Number = 2
	fieldTurn   protowire.Number = 3
)

// Frame is a pluginpb.Frame that is being put together. Its data lies in
// shared memory, or in buffers of a pool, which are handed to gRPC without
// another copy. A frame is sent once.
type Frame struct {
	session uint64
	events  []byte // encoded, with the tags of Frame
	err     *pluginpb.Error
	data    []piece
	tail    piece // what small bodies are copied into; not yet in data
	size    int   // octets of data, with tail
	crc     uint32
	urgent  bool // to be sent as soon as the stream can take it
}

// ready reports whether the frame needn't wait for more.
func (f *Frame) ready() bool {
	return f.urgent || f.size >= fullEnough || len(f.events) >= maxEvents/2
}

func (f *Frame) empty() bool {
	return len(f.events) == 0 && f.err == nil && f.session == 0
}

// event adds an event. begin is an encoded pluginpb.Begin, sum the SHA-256 of
// the message that ends; nil for none.
func (f *Frame) event(begin []byte, body int, end bool, sum, fail []byte) {
	n := 0
	if begin != nil {
		n += protowire.SizeTag(fieldBegin) + protowire.SizeBytes(len(begin))
	}
	if body > 0 {
		n += protowire.SizeTag(fieldBody) + protowire.SizeVarint(uint64(body))
	}
	if end {
		n += protowire.SizeTag(fieldEnd) + 1
	}
	if fail != nil {
		n += protowire.SizeTag(fieldFail) + protowire.SizeBytes(len(fail))
	}
	if sum != nil {
		n += protowire.SizeTag(fieldSum) + protowire.SizeBytes(len(sum))
	}
	b := protowire.AppendTag(f.events, fieldEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	if begin != nil {
		b = protowire.AppendTag(b, fieldBegin, protowire.BytesType)
		b = protowire.AppendBytes(b, begin)
	}
	if body > 0 {
		b = protowire.AppendTag(b, fieldBody, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(body))
	}
	if end {
		b = protowire.AppendTag(b, fieldEnd, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	if fail != nil {
		b = protowire.AppendTag(b, fieldFail, protowire.BytesType)
		b = protowire.AppendBytes(b, fail)
	}
	if sum != nil {
		b = protowire.AppendTag(b, fieldSum, protowire.BytesType)
		b = protowire.AppendBytes(b, sum)
	}
	f.events = b
}

// signal adds an event that belongs to no message: lanes or pull.
func (f *Frame) signal(field protowire.Number, value uint32) {
	b := protowire.AppendTag(f.events, fieldEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(protowire.SizeTag(field)+protowire.SizeVarint(uint64(value))))
	b = protowire.AppendTag(b, field, protowire.VarintType)
	f.events = protowire.AppendVarint(b, uint64(value))
}

// write copies p to the end of the data.
func (f *Frame) write(p []byte, memory *Memory) {
	if len(p) == 0 {
		return
	}
	f.crc = crc32.Update(f.crc, castagnoli, p)
	f.size += len(p)
	if f.tail.buf != nil && len(*f.tail.buf)+len(p) <= cap(*f.tail.buf) {
		*f.tail.buf = append(*f.tail.buf, p...)
		return
	}
	f.seal()
	// Each further buffer of a frame is larger, so that a lone message takes
	// little and a busy stream few.
	f.tail = memory.get(min(max(len(p), 1<<14, 2*f.size), MaxFrame))
	*f.tail.buf = append((*f.tail.buf)[:0], p...)
}

// give appends a piece, whose memory then belongs to the frame.
func (f *Frame) give(p piece) {
	f.seal()
	f.crc = crc32.Update(f.crc, castagnoli, *p.buf)
	f.size += len(*p.buf)
	f.data = append(f.data, p)
}

func (f *Frame) seal() {
	if f.tail.buf != nil {
		f.data = append(f.data, f.tail)
		f.tail = piece{}
	}
}

// drop gives back the memory of a frame that won't be sent.
func (f *Frame) drop(memory *Memory) {
	f.seal()
	for _, p := range f.data {
		memory.put(p)
	}
	f.data = nil
}

// places returns how many of the pieces lie in shared memory.
func (f *Frame) places() int {
	n := 0
	for _, p := range f.data {
		if p.place.OK() {
			n++
		}
	}
	return n
}

// marshal returns the frame as it goes on the wire, and gives the frame's
// buffers away with it.
func (f *Frame) marshal(buffers mem.BufferPool) (mem.BufferSlice, error) {
	f.seal()
	var fail []byte
	if f.err != nil {
		var err error
		if fail, err = proto.Marshal(f.err); err != nil {
			return nil, err
		}
	}
	places := f.places()
	head := buffers.Get(len(f.events) + len(fail) + 64 + 2*maxPiece*places)
	b := (*head)[:0]
	if f.crc != 0 {
		b = protowire.AppendTag(b, fieldCRC, protowire.Fixed32Type)
		b = protowire.AppendFixed32(b, f.crc)
	}
	b = append(b, f.events...)
	if fail != nil {
		b = protowire.AppendTag(b, fieldError, protowire.BytesType)
		b = protowire.AppendBytes(b, fail)
	}
	if f.session != 0 {
		b = protowire.AppendTag(b, fieldSession, protowire.VarintType)
		b = protowire.AppendVarint(b, f.session)
	}
	inline := f.size
	for _, p := range f.data {
		if places > 0 {
			b = appendPiece(b, p)
		}
		if p.place.OK() {
			inline -= len(*p.buf)
		}
	}
	if inline > 0 {
		b = protowire.AppendTag(b, fieldData, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(inline))
	}
	*head = b
	out := make(mem.BufferSlice, 0, 1+len(f.data)-places)
	out = append(out, mem.NewBuffer(head, buffers))
	for _, p := range f.data {
		if !p.place.OK() {
			out = append(out, mem.NewBuffer(p.buf, buffers))
		}
	}
	f.data, f.size = nil, 0
	return out, nil
}

// maxPiece is the most octets of an encoded piece, with its tag.
const maxPiece = 2 + 3*6

// appendPiece says where the octets of p lie.
func appendPiece(b []byte, p piece) []byte {
	octets := uint64(len(*p.buf))
	n := protowire.SizeTag(fieldOctets) + protowire.SizeVarint(octets)
	if p.place.OK() {
		n += protowire.SizeTag(fieldPlace) + protowire.SizeVarint(uint64(p.place.Number)) +
			protowire.SizeTag(fieldTurn) + protowire.SizeVarint(uint64(p.place.Turn))
	}
	b = protowire.AppendTag(b, fieldPieces, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	b = protowire.AppendTag(b, fieldOctets, protowire.VarintType)
	b = protowire.AppendVarint(b, octets)
	if p.place.OK() {
		b = protowire.AppendTag(b, fieldPlace, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(p.place.Number))
		b = protowire.AppendTag(b, fieldTurn, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(p.place.Turn))
	}
	return b
}
