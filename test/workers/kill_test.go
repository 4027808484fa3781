package workers

import (
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/fenced"
	"github.com/mailhaul/pipeline/test/natsserver"
	"github.com/mailhaul/pipeline/test/s3server"
)

// Four workers are killed, and now and then a node of the NATS cluster, while
// they export: in the end the bucket has what one undisturbed run leaves, file
// for file and line for line, but for the fences in the names (I2). A kill comes
// with a random upload, so that all of them fall within the work however loaded
// the machine is. CI does 40 mailboxes; `make cluster` does 200 with 20 kills.
func TestKilledWorkersLeaveWhatOneRunLeaves(t *testing.T) {
	t.Parallel()
	users, mailboxes, messages, kills := 4, 10, 5, 3
	if n, err := strconv.Atoi(os.Getenv("MAILHAUL_CLUSTER")); err == nil {
		users, mailboxes, messages, kills = 10, n/10, 20, n/10
	}
	w := newWorld(t, natsserver.StartCluster(t), users, mailboxes, messages, func(r *rand.Rand) int { return 2_000 + r.IntN(8_000) })
	w.sinks, w.lease = []string{"eml", "json", "msg"}, 5*time.Second
	one := w.newJob(t, "one", false)
	one.start("run").complete(t)
	want := fenced.Output(t, one.out)
	all := users * mailboxes * messages
	if len(want) != 2*all+1 {
		t.Fatalf("the local run left %d files of %d messages", len(want), all)
	}

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	due := map[int64]bool{} // uploads with which somebody dies
	for len(due) < kills {
		due[random.Int64N(int64(2*all)*9/10)+1] = true
	}
	victims := make(chan struct{}, kills)
	var puts atomic.Int64
	w.s3.Fail(func(r *http.Request) s3server.Mishap {
		if r.Method == http.MethodPut && due[puts.Add(1)] {
			victims <- struct{}{}
		}
		return s3server.None
	})
	j := w.newJob(t, "many", true)
	began := time.Now()
	run := j.start("run")
	c := j.newCrew(4)
	killed, nodes := 0, 0
	for over := false; !over; {
		select {
		case <-victims:
			c.kill(random.IntN(4))
			if killed++; killed%3 == 2 {
				node := w.nats.Nodes[random.IntN(3)]
				node.Kill()
				node.Start(t)
				nodes++
			}
		case <-run.ended:
			over = true
		}
	}
	run.complete(t)
	took := time.Since(began)
	c.end()
	w.s3.Fail(nil)
	if killed != kills {
		t.Errorf("%d kills of %d", killed, kills)
	}
	fenced.Equal(t, fenced.Output(t, j.out), want)
	t.Logf("%d mailboxes with %d messages in %s: %d workers and %d nodes were killed", users*mailboxes, all, took.Round(time.Second), killed, nodes)
}

// crew is workers, each of which is started again when it has ended, as a
// supervisor does.
type crew struct {
	deaths []chan struct{} // asks for a death of each
	over   chan struct{}
	wait   sync.WaitGroup
}

func (j *job) newCrew(n int) *crew {
	c := &crew{over: make(chan struct{})}
	for range n {
		death := make(chan struct{})
		c.deaths = append(c.deaths, death)
		first := j.start("worker")
		c.wait.Go(func() {
			for p := first; ; p = j.start("worker") {
				select {
				case <-death:
				case <-p.ended: // NATS had no leader when it came
				case <-c.over:
					p.kill()
					return
				}
				p.kill()
			}
		})
	}
	return c
}

// kill kills a worker, whose place is taken by a new one.
func (c *crew) kill(i int) { c.deaths[i] <- struct{}{} }

// end ends all of them.
func (c *crew) end() {
	close(c.over)
	c.wait.Wait()
}
