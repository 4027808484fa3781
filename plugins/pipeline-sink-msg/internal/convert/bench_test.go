//go:build unix

package convert_test

import (
	"bytes"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
)

// cpu returns what this process has used of the processor so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkConvert measures mails a CPU second, MIME reading and garbage
// collection with it.
func BenchmarkConvert(b *testing.B) {
	for _, c := range []struct {
		name string
		mail []byte
	}{{"9KB", ordinary()}, {"1MB", attached(750_000)}} {
		b.Run(c.name, func(b *testing.B) {
			conv := convert.New(convert.Options{})
			b.SetBytes(int64(len(c.mail)))
			b.ReportAllocs()
			start := cpu(b)
			for b.Loop() {
				if err := conv.Convert(bytes.NewReader(c.mail), int64(len(c.mail)), convert.Envelope{}); err != nil {
					b.Fatal(err)
				}
				if _, err := conv.WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/(cpu(b)-start).Seconds(), "mails/cpu-s")
		})
	}
}
