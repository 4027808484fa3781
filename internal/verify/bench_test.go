package verify

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"

	"crypto/sha256"
)

// exported makes an export of n messages of about size octets, as the eml sink
// leaves it, and its ledger.
func exported(tb testing.TB, n, size int) Options {
	tb.Helper()
	ctx := context.Background()
	dir := tb.TempDir()
	root := filepath.Join(dir, "eml")
	l, err := ledger.Open(ctx, filepath.Join(dir, "state"), "acme")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	t, err := l.Target(ctx, "archive", root)
	if err != nil {
		tb.Fatal(err)
	}
	d, err := target.OpenDir(ctx, root, target.Owner{Sink: "archive", Pipeline: l.Pipeline()}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	box, err := l.Box(ctx, "alice", "INBOX", 1)
	if err != nil {
		tb.Fatal(err)
	}
	var epoch ledger.Epoch
	for i := range n {
		id := message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: uint32(i + 1)}
		body := fmt.Appendf(nil, "From: a%d@x.test\r\nSubject: message %d\r\nMessage-ID: <%d@x.test>\r\nDate: Sat, 31 Oct 2026 10:00:00 +0100\r\n\r\n", i, i, i)
		body = append(body, bytes.Repeat([]byte("the same words in each line of each mail\r\n"), (size/2+i%size)/42)...)
		f, err := d.Create()
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := f.Write(body); err != nil {
			tb.Fatal(err)
		}
		path := fmt.Sprintf("alice/INBOX/2026-10-31-%d-message %d-%s.eml", i+1, i, id.Hash())
		if err := f.Place(id, path, time.Time{}); err != nil {
			tb.Fatal(err)
		}
		sum := sha256.Sum256(body)
		epoch.Settled = append(epoch.Settled, ledger.Settled{Box: box, ID: id, Octets: int64(len(body)), SHA256: sum[:], Fresh: true,
			Fates: []ledger.Fate{{Target: t.ID, Class: ledger.Written, Receipt: path}}})
	}
	cp, err := d.Flush(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	epoch.Checkpoints = map[ledger.TargetID][]byte{t.ID: cp}
	if err := d.Close(); err != nil {
		tb.Fatal(err)
	}
	if err := l.Commit(ctx, epoch); err != nil {
		tb.Fatal(err)
	}
	return Options{Ledger: l, Plan: &plan.Plan{Name: "acme", Sinks: []plan.Sink{{Name: "archive", Plugin: "eml", Prepared: sink.Prepared{Target: root}}}}}
}

// BenchmarkVerify verifies 20,000 files, and has sha256sum read the same files
// in turn: what counts is the ratio.
func BenchmarkVerify(b *testing.B) {
	const n = 20_000
	o := exported(b, n, 16<<10)
	var ours, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		r, err := Run(b.Context(), o)
		ours += time.Since(start)
		if err != nil || len(r.Findings) > 0 || r.Sinks[0].Hashed != n {
			b.Fatalf("%v, %+v", err, r)
		}
		start = time.Now()
		cmd := exec.Command("sh", "-c", "find . -name '*.eml' -print0 | xargs -0 sha256sum >/dev/null")
		cmd.Dir = o.Plan.Sinks[0].Prepared.Target
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		theirs += time.Since(start)
	}
	b.ReportMetric(float64(ours)/float64(theirs), "×sha256sum")
	b.ReportMetric(float64(ours.Milliseconds())/float64(b.N), "ms/verify")
	b.ReportMetric(float64(theirs.Milliseconds())/float64(b.N), "ms/sha256sum")
}
