package wire

import (
	"io"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/fault"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Whoever announces the sum of a body must tell it: a sink would else store a
// message under a sum that nobody computed (I4).
func TestASumThatIsAnnouncedMustCome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		frames []*pluginpb.Frame
	}{
		{"small, none", []*pluginpb.Frame{{Events: []*pluginpb.Event{
			{Begin: &pluginpb.Begin{HasBody: true, BodySize: 3, Summed: true}, Body: 3, End: true},
		}}}},
		{"small, too short", []*pluginpb.Frame{{Events: []*pluginpb.Event{
			{Begin: &pluginpb.Begin{HasBody: true, BodySize: 3, Summed: true}, Body: 3, End: true, Sha256: make([]byte, 20)},
		}}}},
		{"in two frames, none", []*pluginpb.Frame{
			{Events: []*pluginpb.Event{{Begin: &pluginpb.Begin{HasBody: true, BodySize: 6, Summed: true}, Body: 3}}},
			{Events: []*pluginpb.Event{{Body: 3, End: true}}},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			next := 0
			r := &Reader{Peer: "plugin x", Recv: func(in *Inbound) error {
				if next == len(c.frames) {
					return io.EOF
				}
				f := c.frames[next]
				next++
				f.Data = []byte("abc")
				f.Crc32C = 0x364b3fb7 // CRC-32C of "abc"
				b, err := proto.Marshal(f)
				if err != nil {
					t.Fatal(err)
				}
				return in.unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, NewMemory(NewPool(), nil))
			}}
			defer r.Close()
			item, err := r.Next()
			if err == nil {
				_, err = io.Copy(io.Discard, item.Body)
			}
			if !fault.Is(err, fault.Bug) || !strings.Contains(err.Error(), "a sum of") {
				t.Errorf("the reader says %v", err)
			}
		})
	}
}
