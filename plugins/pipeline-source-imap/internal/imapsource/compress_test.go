package imapsource

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

func TestCompress(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{Compress: true})
	const n = 40
	line := []byte("the same line again and again and again\r\n")
	for i := range n {
		d.Deliver("alice", "INBOX", append(sampleMail(i), bytes.Repeat(line, 100_000/len(line))...), sampleDate)
	}
	want := d.Octets("alice", "INBOX")
	for _, tt := range []struct {
		name  string
		mode  string
		delay time.Duration // of each piece
		rate  float64       // octets a second
		most  int64         // octets on the wire
	}{
		{"always", "always", 0, 0, 300_000},
		{"never", "never", 20 * time.Millisecond, 2_000_000, 0},
		{"auto over a slow link", "auto", 20 * time.Millisecond, 1_000_000, 3_000_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := wireproxy.Start(t, d.IMAP)
			p.Delay(tt.delay)
			p.Rate(tt.rate)
			c := plainConfig(p.Addr)
			c.Compress = tt.mode
			s := openSource(t, c)
			ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
			a := fetch(t.Context(), t, s, "INBOX", 0, ids[:n/2], 5)
			maps.Copy(a.octets, fetch(t.Context(), t, s, "INBOX", 0, ids[n/2:], 5).octets)
			for uid, octets := range want {
				if !bytes.Equal(a.octets[uid], octets) {
					t.Errorf("UID %d differs: %v", uid, a.errs[uid])
				}
			}
			if got := p.Down(); tt.most > 0 && got > tt.most || tt.most == 0 && got < n*100_000 {
				t.Errorf("%d octets came, want at most %d (0: all)", got, tt.most)
			}
		})
	}
}

// BenchmarkCompress says what DEFLATE gains and costs over links of several
// speeds: 20 MB of mail, half of it attachments. Run it with -benchtime 1x.
func BenchmarkCompress(b *testing.B) {
	d := dovecot.Start(b, dovecot.Options{Compress: true})
	r := rand.New(rand.NewPCG(1, 2))
	words := bytes.Fields([]byte("Lorem ipsum dolor sit amet consectetur adipisici elit sed eiusmod tempor incidunt ut labore et dolore magna aliqua"))
	for i := range 100 {
		raw := sampleMail(i)
		for len(raw) < 100_000 {
			for range 10 {
				raw = append(append(raw, words[r.IntN(len(words))]...), ' ')
			}
			raw = append(raw, "\r\n"...)
		}
		for len(raw) < 200_000 {
			var line [57]byte
			for j := range line {
				line[j] = byte(r.Uint32())
			}
			raw = append(base64.StdEncoding.AppendEncode(raw, line[:]), "\r\n"...)
		}
		d.Deliver("alice", "INBOX", raw, sampleDate)
	}
	for _, rate := range []float64{0, 20e6, 8e6, 4e6, 2e6, 1e6} {
		for _, mode := range []string{"never", "always"} {
			b.Run(fmt.Sprintf("%.0f MB/s/%s", rate/1e6, mode), func(b *testing.B) {
				p := wireproxy.Start(b, d.IMAP)
				p.Rate(rate)
				c := plainConfig(p.Addr)
				c.Compress = mode
				s := openSource(b, c)
				ids := idsOf(list(b, s, source.ListRequest{Mailbox: "INBOX"}))
				defer cpu(b)()
				for b.Loop() {
					p.Reset()
					var n int64
					for got, err := range s.Fetch(b.Context(), source.FetchRequest{Mailbox: "INBOX", IDs: batches(ids, 10)}) {
						if err != nil || got.Err != nil {
							b.Fatal(err, got.Err)
						}
						n += got.Message.Body.Size()
					}
					b.SetBytes(n)
					b.ReportMetric(float64(p.Down())/float64(n), "wire/octet")
				}
			})
		}
	}
}
