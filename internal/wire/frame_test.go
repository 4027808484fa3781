package wire

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mailhaul/pipeline/internal/arena"
	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// sent collects what a Writer sends, as it goes on the wire.
type sent struct {
	mu     sync.Mutex
	frames [][]byte
}

func (s *sent) send(memory *Memory) func(*Frame) error {
	return func(f *Frame) error {
		data, err := newCodec(memory).Marshal(f)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.frames = append(s.frames, data.Materialize())
		data.Free()
		return nil
	}
}

// cut returns b as a slice of buffers of n octets, as it may come from a
// network.
func cut(b []byte, n int) mem.BufferSlice {
	var out mem.BufferSlice
	for len(b) > 0 {
		k := min(n, len(b))
		out = append(out, mem.SliceBuffer(b[:k]))
		b = b[k:]
	}
	return out
}

// What a Writer puts on the wire is the public contract: generated code reads
// it, and what generated code writes a Reader reads, however it is cut.
func TestFrameIsProtobuf(t *testing.T) {
	t.Parallel()
	memory := NewMemory(NewPool(), nil)
	var s sent
	w := NewWriter(memory, s.send(memory))
	w.Session(42)
	w.Lanes(3)
	w.Pull(1)
	m := &message.Message{
		Summary: message.Summary{ID: message.ID{Mailbox: "A", UID: 7, UIDValidity: 1}, Size: 5},
		Body:    message.BodyOf([]byte("hello")),
	}
	if broken, err := w.Put(Head(m, ""), m.Body); broken != nil || err != nil {
		t.Fatal(broken, err)
	}
	if err := w.Refuse(&pluginpb.Begin{Id: IDToPB(m.ID, "")}, fault.New(fault.Gone, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(fault.New(fault.Unavailable, "away")); err != nil {
		t.Fatal(err)
	}
	all := &pluginpb.Frame{}
	for _, raw := range s.frames {
		f := &pluginpb.Frame{}
		if err := proto.Unmarshal(raw, f); err != nil {
			t.Fatal(err)
		}
		all.Session |= f.Session
		all.Events = append(all.Events, f.Events...)
		all.Data = append(all.Data, f.Data...)
		if f.Error != nil {
			all.Error = f.Error
		}
		var in Inbound
		if err := in.unmarshal(cut(raw, 3), NewMemory(NewPool(), nil)); err != nil {
			t.Fatal(err)
		}
		if err := in.check(); err != nil {
			t.Error(err)
		}
		in.free()
	}
	id := &pluginpb.ID{Mailbox: "A", Uid: 7, UidValidity: 1}
	want := &pluginpb.Frame{
		Session: 42, Data: []byte("hello"),
		Events: []*pluginpb.Event{
			{Lanes: 3}, {Pull: 1},
			{Begin: &pluginpb.Begin{Id: id, Summary: &pluginpb.Summary{Size: 5}, HasBody: true, BodySize: 5}, Body: 5, End: true},
			{Begin: &pluginpb.Begin{Id: id}, Error: &pluginpb.Error{Class: pluginpb.Class_CLASS_GONE, Text: "gone"}},
		},
		Error: &pluginpb.Error{Class: pluginpb.Class_CLASS_UNAVAILABLE, Text: "away"},
	}
	if diff := cmp.Diff(want, all, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// replay returns a Recv that gives frames, then io.EOF.
func replay(frames ...mem.BufferSlice) func(*Inbound) error {
	return func(in *Inbound) error {
		if len(frames) == 0 {
			return io.EOF
		}
		f := frames[0]
		frames = frames[1:]
		return in.unmarshal(f, NewMemory(NewPool(), nil))
	}
}

func encode(t testing.TB, f *pluginpb.Frame) mem.BufferSlice {
	t.Helper()
	b, err := proto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return cut(b, 5)
}

// Streams that break the contract end in a Bug that names who broke it, and
// no message in them counts as whole.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	const crcABC = 0x364b3fb7 // CRC-32C of "abc"
	begin := &pluginpb.Begin{HasBody: true, BodySize: -1}
	for name, frames := range map[string][]*pluginpb.Frame{
		"wrong sum":             {{Crc32C: 1, Data: []byte("abc"), Events: []*pluginpb.Event{{Begin: begin, Body: 3, End: true}}}},
		"no sum":                {{Data: []byte("abc"), Events: []*pluginpb.Event{{Begin: begin, Body: 3, End: true}}}},
		"more claimed":          {{Crc32C: crcABC, Data: []byte("abc"), Events: []*pluginpb.Event{{Begin: begin, Body: 4, End: true}}}},
		"less claimed":          {{Crc32C: crcABC, Data: []byte("abc"), Events: []*pluginpb.Event{{Begin: begin, Body: 2, End: true}}}},
		"no message":            {{Crc32C: crcABC, Data: []byte("abc"), Events: []*pluginpb.Event{{Body: 3, End: true}}}},
		"no end":                {{Crc32C: crcABC, Data: []byte("abc"), Events: []*pluginpb.Event{{Begin: begin, Body: 3}}}},
		"begins in another":     {{Events: []*pluginpb.Event{{Begin: begin}, {Begin: begin, End: true}}}},
		"body without has_body": {{Crc32C: crcABC, Data: []byte("abc"), Events: []*pluginpb.Event{{Begin: &pluginpb.Begin{}, Body: 3, End: true}}}},
		"shorter than it said":  {{Crc32C: crcABC, Data: []byte("abc"), Events: []*pluginpb.Event{{Begin: &pluginpb.Begin{HasBody: true, BodySize: 4}, Body: 3, End: true}}}},
		"shorter, in two": {
			{Crc32C: crcABC, Data: []byte("abc"), Events: []*pluginpb.Event{{Begin: &pluginpb.Begin{HasBody: true, BodySize: 4}, Body: 3}}},
			{Events: []*pluginpb.Event{{End: true}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var raw []mem.BufferSlice
			for _, f := range frames {
				raw = append(raw, encode(t, f))
			}
			r := &Reader{Peer: "plugin x", Recv: replay(raw...)}
			defer r.Close()
			var bodyErr error
			item, err := r.Next()
			if err == nil {
				if item.Err != nil || item.Body == nil {
					t.Fatalf("got %+v", item)
				}
				_, bodyErr = io.Copy(io.Discard, item.Body)
				if bodyErr == nil {
					t.Error("the body counts as whole")
				}
				err = bodyErr
			}
			if !fault.Is(err, fault.Bug) {
				t.Errorf("%v, want a Bug", err)
			}
		})
	}
}

func TestReaderKeepsItsError(t *testing.T) {
	t.Parallel()
	lost := errors.New("lost")
	r := &Reader{Recv: func(*Inbound) error { return lost }}
	for range 2 {
		if _, err := r.Next(); !errors.Is(err, lost) {
			t.Errorf("%v, want %v", err, lost)
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		memory int64
		lanes  int
		want   int32
	}{
		{1 << 30, 1, 8 << 20}, {64 << 20, 8, 4 << 20}, {1 << 20, 100, minWindow}, {32 << 20, 0, 8 << 20},
	} {
		if got := Window(c.memory, c.lanes); got != c.want {
			t.Errorf("Window(%d, %d) = %d, want %d", c.memory, c.lanes, got, c.want)
		}
	}
}

func TestPool(t *testing.T) {
	t.Parallel()
	p := NewPool()
	for _, n := range []int{0, 1, 4096, 4097, MaxFrame, MaxFrame + 1} {
		b := p.Get(n)
		if len(*b) != n {
			t.Errorf("Get(%d) has %d octets", n, len(*b))
		}
		p.Put(b)
	}
}

// FuzzFrame: whatever arrives, a Reader neither panics nor spins, gives back
// every octet that it handed out only while it may be read, and accepts no
// frame that protobuf itself refuses.
func FuzzFrame(f *testing.F) {
	abc, err := proto.Marshal(&pluginpb.Frame{Crc32C: 0x364b3fb7, Session: 1, Data: []byte("abc"), Events: []*pluginpb.Event{
		{Lanes: 1, Pull: 2}, {Begin: &pluginpb.Begin{HasBody: true, BodySize: 3, Id: &pluginpb.ID{Uid: 1}}, Body: 1}, {Body: 2, End: true},
	}})
	if err != nil {
		f.Fatal(err)
	}
	pieces, err := proto.Marshal(&pluginpb.Frame{Crc32C: 0x364b3fb7, Session: 1, Data: []byte("abc"),
		Pieces: []*pluginpb.Piece{{Octets: 1}, {}, {Octets: 2}},
		Events: []*pluginpb.Event{{Begin: &pluginpb.Begin{HasBody: true, BodySize: 3}, Body: 3, End: true}},
	})
	if err != nil {
		f.Fatal(err)
	}
	elsewhere, err := proto.Marshal(&pluginpb.Frame{Crc32C: 1, Pieces: []*pluginpb.Piece{{Octets: 9, Place: 1, Turn: 1}, {Octets: 1 << 30}}})
	if err != nil {
		f.Fatal(err)
	}
	shared, file, err := arena.New(2)
	if err != nil {
		f.Fatal(err)
	}
	if file != nil {
		file.Close()
	}
	memory := NewMemory(NewPool(), shared)
	f.Add(pieces, 5)
	f.Add(elsewhere, 5)
	f.Add(abc, 4)
	f.Add([]byte{0x7a, 0xff, 0xff, 0xff, 0xff, 0x0f}, 1)
	f.Add([]byte{0x0d, 1, 2}, 2)
	f.Add(bytes.Repeat([]byte{0x12, 0x02, 0x18, 0x01}, 3), 3)
	f.Fuzz(func(t *testing.T, raw []byte, pieces int) {
		if pieces < 1 || pieces > 1<<16 {
			pieces = 7
		}
		var in Inbound
		accepted := in.unmarshal(cut(raw, pieces), memory) == nil
		in.free()
		var generated pluginpb.Frame
		if err := proto.Unmarshal(raw, &generated); accepted && err != nil {
			t.Errorf("a frame is accepted that protobuf refuses: %v", err)
		}
		r := &Reader{Recv: replay(cut(raw, pieces), cut(raw, pieces))}
		defer r.Close()
		for range 2 * (len(raw) + 1) {
			item, err := r.Next()
			if err != nil {
				return
			}
			if item.Body != nil {
				_, _ = io.Copy(io.Discard, item.Body) // an error is as good as an end
			}
			_ = item.Message()
		}
		t.Error("the stream doesn't end")
	})
}
