package imapsource

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/imapscript"
)

// TestRate: a second's worth may come at once, the rest at the pace; no gap
// between two messages is longer than it has to be.
func TestRate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		rate   func(c *Config)
		octets int // of each message
		n      int
		least  time.Duration
		gap    time.Duration // longest that is fine, on a loaded machine
	}{
		{"messages", func(c *Config) { c.Rate.Messages = spec.Rate{PerSecond: 20} }, 100, 50, 1400 * time.Millisecond, 3 * time.Second},
		{"one message a second", func(c *Config) { c.Rate.Messages = spec.Rate{PerSecond: 1} }, 100, 3, 1900 * time.Millisecond, 3 * time.Second},
		{"octets", func(c *Config) { c.Rate.Bytes = spec.Rate{PerSecond: 200_000, Octets: true} }, 10_000, 50, 1300 * time.Millisecond, 3 * time.Second},
		{"octets of one large message", func(c *Config) { c.Rate.Bytes = spec.Rate{PerSecond: 1_000_000, Octets: true} }, 2_500_000, 1, 1300 * time.Millisecond, 10 * time.Second},
		{"none", func(*Config) {}, 100, 50, 0, 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			box := inbox(tt.n)
			for i := range box.Messages {
				box.Messages[i].Raw = strings.Repeat("x", tt.octets)
			}
			var commands atomic.Int64
			server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{box}, Command: func(_ *imapscript.Conn, _, verb, _ string) bool {
				if verb == "UID FETCH" {
					commands.Add(1)
				}
				return false
			}})
			c := plainConfig(server.Addr)
			tt.rate(&c)
			s := openSource(t, c)
			ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
			start := time.Now()
			last, count := start, 0
			for got, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", IDs: batches(ids, 100)}) {
				if err != nil || got.Err != nil {
					t.Fatal(err, got.Err)
				}
				b, err := got.Message.Body.Whole(t.Context())
				if err != nil || b.Size() != int64(tt.octets) {
					t.Fatalf("%v", err)
				}
				count++
				if gap := time.Since(last); gap > tt.gap {
					t.Errorf("%v went by without a message", gap)
				}
				last = time.Now()
			}
			if took := time.Since(start); count != tt.n || took < tt.least {
				t.Errorf("%d messages in %v, want %d in at least %v", count, took, tt.n, tt.least)
			}
			if tt.name == "none" && commands.Load() != 1 {
				t.Errorf("%d commands without a pace, want one", commands.Load())
			}
		})
	}
}
