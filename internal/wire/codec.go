package wire

import (
	"github.com/mailhaul/pipeline/internal/pluginpb"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// codec puts frames on the wire without copying their data, and everything
// else through ordinary protobuf. What it writes is protobuf as well, so that
// the other side may be any implementation. It is forced on our own servers
// and clients and never registered: other users of gRPC in a plugin's process
// keep theirs.
type codec struct {
	memory *Memory
	other  encoding.CodecV2
}

func newCodec(memory *Memory) codec {
	return codec{memory: memory, other: encoding.GetCodecV2(proto.Name)}
}

// Name returns the content subtype, as the public contract has it.
func (codec) Name() string { return proto.Name }

// Marshal encodes a message. It consumes a *Frame.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*Frame); ok {
		return f.marshal(c.memory.pool)
	}
	if b, ok := v.(*pluginpb.SummaryBatch); ok {
		return c.batch(b)
	}
	return c.other.Marshal(v)
}

// Unmarshal decodes a message. An *Inbound keeps references to data.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if in, ok := v.(*Inbound); ok {
		return in.unmarshal(data, c.memory)
	}
	if b, ok := v.(*pluginpb.SummaryBatch); ok {
		whole := data.MaterializeToBuffer(c.memory.pool)
		defer whole.Free()
		if (&heads{}).batch(whole.ReadOnlyData(), b) {
			return nil
		}
		b.Reset()
	}
	return c.other.Unmarshal(data, v)
}

// batch encodes the summaries of a listing.
func (c codec) batch(p *pluginpb.SummaryBatch) (mem.BufferSlice, error) {
	n := 128
	for _, s := range p.Summaries {
		if s != nil {
			n += sizeSized(2, sizeSummary(s))
		}
	}
	buf := c.memory.pool.Get(n)
	b, err := appendBatch((*buf)[:0], p)
	if err != nil {
		c.memory.pool.Put(buf)
		return nil, err
	}
	*buf = b
	return mem.BufferSlice{mem.NewBuffer(buf, c.memory.pool)}, nil
}
