package ledger

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

// epoch makes n settled messages of one mailbox from UID first on, as a run
// with one sink has them, and returns the octets of their receipts.
func epoch(box Box, target TargetID, first, n int, receipts bool) (e Epoch, octets int) {
	for uid := first; uid < first+n; uid++ {
		sum := sha256.Sum256(fmt.Append(nil, uid))
		f := Fate{Target: target, Class: Written}
		if receipts {
			f.Receipt = fmt.Sprintf("alice/INBOX/2026-11-21-%d-a-subject-of-some-length-abcdefghij.eml", uid)
		}
		octets += len(f.Receipt)
		e.Settled = append(e.Settled, Settled{Box: box, ID: message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: uint32(uid)},
			Octets: 4096, SHA256: sum[:], Mark: Mark(sum[:]), Fates: []Fate{f}, Fresh: true})
	}
	return e, octets
}

// BenchmarkMillion commits a million messages in epochs of 4,096, and prints
// what the ledger takes on disk for each, the receipts left out.
func BenchmarkMillion(b *testing.B) {
	for _, receipts := range []bool{false, true} {
		b.Run(fmt.Sprintf("receipts=%v", receipts), func(b *testing.B) {
			ctx := context.Background()
			const n, size = 1_000_000, 4096
			for b.Loop() {
				l, err := Open(ctx, b.TempDir(), "x")
				if err != nil {
					b.Fatal(err)
				}
				box, _ := l.Box(ctx, "alice", "INBOX", 1)
				target, _ := l.Target(ctx, "eml", "/x")
				var took time.Duration
				paid := 0
				for first := 1; first <= n; first += size {
					e, octets := epoch(box, target.ID, first, min(size, n+1-first), receipts)
					paid += octets
					start := time.Now()
					if err := l.Commit(ctx, e); err != nil {
						b.Fatal(err)
					}
					took += time.Since(start)
				}
				ids := make([]message.ID, size)
				var looked time.Duration
				for first := 1; first+size <= n; first += size {
					for i := range ids {
						ids[i] = message.ID{UID: uint32(first + i)}
					}
					start := time.Now()
					found, err := l.Lookup(ctx, box, ids)
					looked += time.Since(start)
					if err != nil || len(found[size-1].Fates) != 1 {
						b.Fatal(err)
					}
				}
				l.Close()
				fi, err := os.Stat(l.Path())
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(fi.Size()-int64(paid))/n, "octets/message")
				b.ReportMetric(n/took.Seconds(), "rows/s")
				b.ReportMetric(float64(looked.Microseconds())/(n/size), "µs/page")
			}
		})
	}
}

// BenchmarkStrings is the same for POP3's ids.
func BenchmarkStrings(b *testing.B) {
	ctx := context.Background()
	const n, size = 200_000, 4096
	for b.Loop() {
		l, err := Open(ctx, b.TempDir(), "x")
		if err != nil {
			b.Fatal(err)
		}
		box, _ := l.Box(ctx, "alice", "INBOX", 1)
		target, _ := l.Target(ctx, "eml", "/x")
		var took, looked time.Duration
		id := func(i int) message.ID { return message.ID{UIDL: fmt.Sprintf("%08x%08x", i, 1700000000)} }
		for first := 1; first <= n; first += size {
			e, _ := epoch(box, target.ID, first, min(size, n+1-first), false)
			for i := range e.Settled {
				e.Settled[i].ID = id(first + i)
			}
			start := time.Now()
			if err := l.Commit(ctx, e); err != nil {
				b.Fatal(err)
			}
			took += time.Since(start)
		}
		ids := make([]message.ID, size)
		for first := 1; first+size <= n; first += size {
			for i := range ids {
				ids[i] = id(first + i)
			}
			start := time.Now()
			found, err := l.Lookup(ctx, box, ids)
			looked += time.Since(start)
			if err != nil || len(found[size-1].Fates) != 1 {
				b.Fatal(err)
			}
		}
		l.Close()
		fi, err := os.Stat(l.Path())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(fi.Size())/n, "octets/message")
		b.ReportMetric(n/took.Seconds(), "rows/s")
		b.ReportMetric(float64(looked.Microseconds())/(n/size), "µs/page")
	}
}
