package worker_test

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/test/natsserver"
)

// Tasks of empty mailboxes are done at so many a second, by two workers with
// everything on one machine. CI does a few, and prints what it came to;
// `make cluster` does 10,000 and wants 300 a second.
func TestEmptyTasks(t *testing.T) {
	t.Parallel()
	tasks, atLeast := 200, 0.0
	if n, err := strconv.Atoi(os.Getenv("MAILHAUL_TASKS")); err == nil {
		tasks, atLeast = n, 300
	}
	s := newSetup(t, natsserver.Start(t), mail{Sources: 20, Mailboxes: tasks / 20, Lanes: 4})
	s.Lease, s.Tasks = 30*time.Second, 8
	c, err := s.cluster(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	s.start(t)
	s.start(t)
	began := time.Now()
	s.complete(t, s.coordinate(t.Context(), t, nil))
	rate := float64(tasks) / time.Since(began).Seconds()
	t.Logf("%d tasks of empty mailboxes: %.0f a second", tasks, rate)
	if rate < atLeast {
		t.Errorf("%.0f tasks a second, want %.0f", rate, atLeast)
	}
}

// Two workers take no longer than 1.2 times what a local run takes on the same
// machine. It is for `make cluster`: what else the machine does counts.
func TestTwoWorkersAgainstALocalRun(t *testing.T) {
	messages, err := strconv.Atoi(os.Getenv("MAILHAUL_MESSAGES"))
	if err != nil {
		messages = 20 // it runs, and nothing is said of its time
	}
	m := mail{Sources: 4, Mailboxes: 10, Messages: messages, Lanes: 4}
	local := func() time.Duration {
		m.Folder = t.TempDir()
		l, err := ledger.Open(t.Context(), t.TempDir(), "test")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		began := time.Now()
		r, err := engine.Run(t.Context(), nil, engine.Options{
			Plan: m.plan(), Ledger: l, Plugins: &m, Log: slog.New(slog.DiscardHandler), Spool: &message.Spool{}, Run: 1,
		})
		if err != nil || r.Exit() != engine.ExitDone {
			t.Fatalf("the local run: exit code %d, %v", r.Exit(), err)
		}
		return time.Since(began)
	}()
	s := newSetup(t, natsserver.Start(t), m)
	s.Lease = 30 * time.Second
	c, err := s.cluster(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for range 2 {
		s.start(t)
	}
	began := time.Now()
	s.complete(t, s.coordinate(t.Context(), t, nil))
	took := time.Since(began)
	ratio := took.Seconds() / local.Seconds()
	t.Logf("%d messages: locally %s, by two workers %s: %s times", m.Sources*m.Mailboxes*messages, local.Round(time.Millisecond), took.Round(time.Millisecond), fmt.Sprintf("%.2f", ratio))
	if os.Getenv("MAILHAUL_MESSAGES") != "" && ratio > 1.2 {
		t.Errorf("two workers take %.2f times as long as a local run, want 1.2 at most", ratio)
	}
}
