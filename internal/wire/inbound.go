package wire

import (
	"hash/crc32"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/fault"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Inbound is a frame that was received. Its data stays in the buffers that
// gRPC read it into, until free.
type Inbound struct {
	session uint64
	crc     uint32
	events  []*pluginpb.Event
	err     *pluginpb.Error
	data    mem.BufferSlice
	pieces  []*pluginpb.Piece
}

// free gives back the data, and keeps the memory of the list of events for the
// next frame.
func (in *Inbound) free() {
	in.data.Free()
	if cap(in.events) > keptEvents {
		in.events = nil
	}
	clear(in.events)
	*in = Inbound{events: in.events[:0]}
}

// keptEvents bounds the memory that is kept: a frame may have millions.
const keptEvents = 4096

// unmarshal reads a frame from raw and takes references to the parts of it
// that hold the data, in raw and in shared memory. Fields that it doesn't know
// are passed over.
func (in *Inbound) unmarshal(raw mem.BufferSlice, memory *Memory) error {
	*in = Inbound{events: in.events[:0]}
	c := cursor{rest: raw, n: raw.Len()}
	var h heads
	for !c.done() {
		tag, err := c.varint()
		if err != nil {
			return err
		}
		number, kind := protowire.DecodeTag(tag)
		switch {
		case !number.IsValid():
			return fault.New(fault.Bug, "a frame has a field with the tag %#x", tag)
		case number == fieldData && kind == protowire.BytesType:
			n, err := c.length()
			if err != nil {
				return err
			}
			// A second data field replaces the first, as protobuf says.
			in.data.Free()
			in.data = c.share(n)
		case kind == protowire.BytesType:
			n, err := c.length()
			if err != nil {
				return err
			}
			if err := in.field(&h, number, c.bytes(n)); err != nil {
				return err
			}
		case kind == protowire.VarintType:
			v, err := c.varint()
			if err != nil {
				return err
			}
			if number == fieldSession {
				in.session = v
			}
		case kind == protowire.Fixed32Type && c.n >= 4:
			v, _ := protowire.ConsumeFixed32(c.bytes(4))
			if number == fieldCRC {
				in.crc = v
			}
		case kind == protowire.Fixed64Type && c.n >= 8:
			c.bytes(8)
		default:
			return fault.New(fault.Bug, "a frame has field %d of wire type %d, or ends in it", number, kind)
		}
	}
	if len(in.pieces) > 0 {
		return in.gather(memory)
	}
	return nil
}

// maxPieces is more than any writer puts into one frame.
const maxPieces = 64

// gather puts the data together from the pieces that the frame names.
func (in *Inbound) gather(memory *Memory) error {
	inline := in.data
	defer inline.Free()
	in.data = nil
	c := cursor{rest: inline, n: inline.Len()}
	if len(in.pieces) > maxPieces {
		return fault.New(fault.Bug, "a frame has %d pieces", len(in.pieces))
	}
	for _, p := range in.pieces {
		n := int(p.GetOctets())
		if p.GetPlace() != 0 {
			b, err := memory.hold(p.GetPlace(), p.GetTurn(), n)
			if err != nil {
				return err
			}
			in.data = append(in.data, b)
			continue
		}
		if n > c.n {
			return fault.New(fault.Bug, "a piece of a frame has %d octets, %d are there", n, c.n)
		}
		in.data = append(in.data, c.share(n)...)
	}
	if c.n > 0 {
		return fault.New(fault.Bug, "a frame has %d octets more than its pieces", c.n)
	}
	return nil
}

func (in *Inbound) field(h *heads, number protowire.Number, value []byte) error {
	switch number {
	case fieldEvents:
		e, ok := h.event(value)
		if !ok {
			e = new(pluginpb.Event)
			if err := proto.Unmarshal(value, e); err != nil {
				return fault.New(fault.Bug, "a frame has a broken event: %w", err)
			}
		}
		in.events = append(in.events, e)
	case fieldPieces:
		p := new(pluginpb.Piece)
		if err := proto.Unmarshal(value, p); err != nil {
			return fault.New(fault.Bug, "a frame has a broken piece: %w", err)
		}
		in.pieces = append(in.pieces, p)
	case fieldError:
		in.err = new(pluginpb.Error)
		if err := proto.Unmarshal(value, in.err); err != nil {
			return fault.New(fault.Bug, "a frame has a broken error: %w", err)
		}
	}
	return nil
}

// check compares the data with its sum and with what the events say of it.
func (in *Inbound) check() error {
	sum := uint32(0)
	for _, b := range in.data {
		sum = crc32.Update(sum, castagnoli, b.ReadOnlyData())
	}
	if sum != in.crc {
		return fault.New(fault.Bug, "a frame of %d octets has the CRC-32C %08x instead of %08x", in.data.Len(), sum, in.crc)
	}
	claimed := uint64(0)
	for _, e := range in.events {
		claimed += uint64(e.GetBody())
	}
	if claimed != uint64(in.data.Len()) {
		return fault.New(fault.Bug, "the events of a frame speak of %d octets, it has %d", claimed, in.data.Len())
	}
	return nil
}

// cursor walks over buffers that hold one text.
type cursor struct {
	rest mem.BufferSlice
	off  int // into rest[0]
	n    int // octets left; kept by unmarshal's cursor alone
}

func (c *cursor) done() bool {
	for len(c.rest) > 0 && c.off == c.rest[0].Len() {
		c.rest, c.off = c.rest[1:], 0
	}
	return len(c.rest) == 0
}

func (c *cursor) varint() (uint64, error) {
	var v uint64
	for shift := 0; shift < 64 && !c.done(); shift += 7 {
		b := c.rest[0].ReadOnlyData()[c.off]
		c.off++
		c.n--
		if shift == 63 && b > 1 {
			break // more than 64 bits
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, fault.New(fault.Bug, "a frame ends inside a number, or has one of more than 64 bits")
}

// length reads the length of a field and checks that it is there.
func (c *cursor) length() (int, error) {
	n, err := c.varint()
	if err != nil {
		return 0, err
	}
	if n > uint64(c.n) {
		return 0, fault.New(fault.Bug, "a frame ends %d octets into a field of %d", c.n, n)
	}
	return int(n), nil
}

// bytes returns the next n octets: in place where they lie in one buffer,
// else a copy. They are valid as long as the buffers.
func (c *cursor) bytes(n int) []byte {
	if n == 0 || c.done() {
		return nil
	}
	if b := c.rest[0].ReadOnlyData()[c.off:]; len(b) >= n {
		c.off += n
		c.n -= n
		return b[:n]
	}
	c.n -= n
	out := make([]byte, 0, n)
	for len(out) < n && !c.done() {
		b := c.rest[0].ReadOnlyData()[c.off:]
		b = b[:min(len(b), n-len(out))]
		out = append(out, b...)
		c.off += len(b)
	}
	return out
}

// share returns references to the buffers that hold the next n octets.
func (c *cursor) share(n int) mem.BufferSlice {
	var out mem.BufferSlice
	c.n -= n
	for n > 0 && !c.done() {
		k := min(n, c.rest[0].Len()-c.off)
		out = append(out, c.rest[0].Slice(c.off, c.off+k))
		c.off += k
		n -= k
	}
	return out
}
