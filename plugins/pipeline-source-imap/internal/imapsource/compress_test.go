package imapsource

import (
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

func TestCompress(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{Compress: true})
	big := sampleMail(1)
	for len(big) < 2<<20 {
		big = append(big, "the same line again and again and again\r\n"...)
	}
	d.Deliver("alice", "INBOX", big, sampleDate)
	d.Deliver("alice", "INBOX", sampleMail(2), sampleDate)
	for _, tt := range []struct {
		name  string
		mode  string
		delay time.Duration
		want  bool
	}{{"always", "always", 0, true}, {"never", "never", 40 * time.Millisecond, false}, {"auto on a slow link", "auto", 40 * time.Millisecond, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := wireproxy.Start(t, d.IMAP)
			p.Delay(tt.delay)
			c := plainConfig(p.Addr)
			c.Compress = tt.mode
			s := openSource(t, c)
			a := fetch(t.Context(), t, s, "INBOX", 0, idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"})), 10)
			if string(a.octets[1]) != string(big) || string(a.octets[2]) != string(sampleMail(2)) {
				t.Errorf("the octets differ: %v", a.errs)
			}
			if compressed := p.Down() < 200_000; compressed != tt.want {
				t.Errorf("%d octets came, compressed: %v, want %v", p.Down(), compressed, tt.want)
			}
		})
	}
}
