//go:build unix

package msg_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msg"
)

// BenchmarkWrite measures whole Writes, files with it, in mails a CPU second.
func BenchmarkWrite(b *testing.B) {
	_, lines := block()
	for _, c := range []struct {
		name string
		mail string
	}{
		{"9KB", mail + strings.Repeat("A line of text as people write them, on and on, for a while.\r\n", 140)},
		{"1MB", "From: a@b.c\r\nSubject: one\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + strings.Repeat(lines, 13)},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, err := msg.Open(b.Context(), config(b.TempDir()), sink.State{Name: "outlook", Pipeline: "p1"})
			if err != nil {
				b.Fatal(err)
			}
			octets, uid := []byte(c.mail), uint32(0)
			b.SetBytes(int64(len(octets)))
			b.ReportAllocs()
			start := cpu(b)
			for b.Loop() {
				uid++
				m := of(uid, message.BodyOf(octets))
				m.ID.Mailbox = fmt.Sprint("box", uid/1000)
				if _, err := s.Write(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/(cpu(b)-start).Seconds(), "mails/cpu-s")
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
