//go:build unix

package msg_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msg"
)

// BenchmarkLanes writes one mail on each lane at once, as the host does: with
// -cpu 1,2 it says what a second core is worth, and mails/cpu-s what the lanes
// cost each other.
func BenchmarkLanes(b *testing.B) {
	s, err := msg.Open(b.Context(), config(b.TempDir()), sink.State{Name: "outlook", Pipeline: "p1"})
	if err != nil {
		b.Fatal(err)
	}
	octets := []byte(mail + strings.Repeat("A line of text as people write them, on and on, for a while.\r\n", 140))
	var uid atomic.Uint32
	b.SetBytes(int64(len(octets)))
	start := cpu(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := uid.Add(1)
			m := of(n, message.BodyOf(octets))
			m.ID.Mailbox = fmt.Sprint("box", n/1000)
			if _, err := s.Write(b.Context(), m); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/(cpu(b)-start).Seconds(), "mails/cpu-s")
	b.ReportMetric((cpu(b)-start).Seconds()/b.Elapsed().Seconds(), "cores")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
