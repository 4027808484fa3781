package worker_test

import (
	"os"
	"strconv"
	"testing"
	"time"

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
