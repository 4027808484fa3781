package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/cluster/coordinator"
	"github.com/mailhaul/pipeline/internal/cluster/worker"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/test/natsserver"
	"github.com/mailhaul/pipeline/test/objectstore"
	"github.com/mailhaul/pipeline/test/program"
	"github.com/mailhaul/pipeline/test/s3server"
)

const childEnv = "MAILHAUL_TEST_WORKER"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		child(text)
	}
	code := m.Run()
	objectstore.Remove()
	os.Exit(code)
}

// setup is what all processes of a test share.
type setup struct {
	Mail     mail
	URL      string
	Replicas int
	Lease    time.Duration
	Socket   string
	Address  string
	Tasks    int
	Range    int
	Partial  bool // what counts isn't all that there is

	Retry func(task string) *status.Choice `json:"-"`
	nats  *natsserver.Server
}

func newSetup(t *testing.T, s *natsserver.Server, m mail) *setup {
	t.Helper()
	s3 := s3server.Start(t, "mail")
	m.Folder, m.counts = t.TempDir(), &counts{}
	return &setup{
		Mail: m, URL: s.URL, Replicas: len(s.Nodes), Lease: 3 * time.Second, Tasks: 4,
		Socket: objectstore.Start(t, s3.Environ()), Address: s3.Address("mail/acme"), nats: s,
	}
}

func (s *setup) cluster(ctx context.Context, make bool) (*cluster.Cluster, error) {
	return cluster.Open(ctx, cluster.Options{URL: s.URL, Stream: "TEST", Replicas: s.Replicas, Lease: s.Lease, Make: make})
}

// work runs a worker in this process until stop is closed.
func (s *setup) work(ctx context.Context, name string, once bool, stop <-chan struct{}) (int64, error) {
	c, err := s.cluster(ctx, false)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	at, err := objects.Parse(s.Address)
	if err != nil {
		return 0, err
	}
	bucket, err := objects.Dial(s.Socket, at)
	if err != nil {
		return 0, err
	}
	defer bucket.Close()
	dir, err := os.MkdirTemp("", "mhworker-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	return worker.Run(ctx, worker.Options{
		Cluster: c, Plan: s.Mail.plan(), File: "f", Plugins: &s.Mail, Open: s.Mail.share, Objects: bucket, Prefix: at.Prefix + "/", Dir: dir,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Spool: &message.Spool{}, Name: name, Tasks: s.Tasks, Once: once,
		Stop: stop, Events: func(e worker.Event) {
			if e.Err != nil {
				fmt.Fprintln(os.Stderr, name+":", e)
			}
		},
	})
}

// child is a worker in a process of its own.
func child(text string) {
	var s setup
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		panic(err)
	}
	s.Mail.counts = &counts{}
	for { // NATS may have no leader just now
		_, err := s.work(context.Background(), fmt.Sprint("child ", os.Getpid()), false, nil)
		fmt.Fprintln(os.Stderr, "worker ended:", err)
		time.Sleep(100 * time.Millisecond) // a supervisor's pause
	}
}

// start starts a worker process, which is killed when the test ends.
func (s *setup) start(t *testing.T) *process {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = &p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("process %d said: %s", p.cmd.Process.Pid, p.said.String())
		}
	})
	return p
}

type process struct {
	cmd  *exec.Cmd
	said program.Output
	once sync.Once
}

// kill ends it as kill -9 does.
func (p *process) kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill() // it is gone anyway
		_ = p.cmd.Wait()
	})
}

// coordinate runs the coordinator. A merge checks that what counts is what an
// undisturbed run writes.
func (s *setup) coordinate(ctx context.Context, t *testing.T, stop <-chan struct{}) *coordinator.Result {
	t.Helper()
	c, err := s.cluster(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at, err := objects.Parse(s.Address)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := objects.Dial(s.Socket, at)
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	r, err := coordinator.Run(ctx, coordinator.Options{
		Objects: bucket, Prefix: at.Prefix + "/", Cluster: c, Plan: s.Mail.plan(), File: "f", Plugins: &s.Mail, Range: s.Range, Retry: s.Retry, Stats: &engine.Stats{}, Events: func(engine.Event) {},
		Log: slog.New(slog.DiscardHandler), Name: "coordinator", Stop: stop, Now: time.Now(),
		Merge: func(ctx context.Context, _ *plan.Sink, _ sink.State, tasks []sink.TaskCheckpoint, keep func(context.Context, sink.Checkpoint) error) error {
			if !s.Partial {
				s.check(t, tasks)
			}
			return keep(ctx, nil)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// check holds what the checkpoints name against what an undisturbed run writes.
func (s *setup) check(t *testing.T, tasks []sink.TaskCheckpoint) {
	t.Helper()
	got := map[string]string{}
	for _, k := range tasks {
		names := map[string]string{}
		if err := json.Unmarshal(k.Checkpoint, &names); err != nil {
			t.Fatalf("task %s: %v", k.Task, err)
		}
		for of, file := range names {
			if _, twice := got[of]; twice {
				t.Errorf("%s was written twice", of)
			}
			b, err := os.ReadFile(filepath.Join(s.Mail.Folder, file))
			if err != nil {
				t.Error(err)
			}
			got[of] = string(b)
		}
	}
	if diff := cmp.Diff(s.Mail.want(), got); diff != "" {
		t.Errorf("what counts isn't what an undisturbed run writes (-want +got):\n%.2000s", diff)
	}
	notes, err := filepath.Glob(filepath.Join(s.Mail.Folder, "trouble-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range notes {
		text, _ := os.ReadFile(n)
		t.Errorf("a worker says: %s", text)
	}
}

// complete checks that the result has every message, written in this run or
// before.
func (s *setup) complete(t *testing.T, r *coordinator.Result) {
	t.Helper()
	var listed, done int64
	for _, a := range r.Result.Accounts {
		if a.Err != nil {
			t.Errorf("account %s: %v", a.Source, a.Err)
		}
		for i := range a.Mailboxes {
			m := &a.Mailboxes[i]
			if err := m.Check(); err != nil {
				t.Error(err)
			}
			if !m.Complete {
				t.Errorf("mailbox %s/%s is %s: %v", a.Source, m.Mailbox, m.State, m.Problem)
			}
			listed += m.Listed
			done += m.Written + m.DoneBefore
		}
	}
	if want := int64(s.Mail.Sources * s.Mail.Mailboxes * s.Mail.Messages); listed != want || done != want {
		t.Errorf("%d listed and %d done of %d", listed, done, want)
	}
}

// Two workers do what one run does, a second run finds nothing new, and a large
// mailbox in ranges is written once.
func TestWorkersDoARun(t *testing.T) {
	t.Parallel()
	s := newSetup(t, natsserver.Start(t), mail{Sources: 3, Mailboxes: 3, Messages: 25, Lanes: 2})
	s.Range = 10
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if _, err := s.work(t.Context(), fmt.Sprint("w", i), false, stop); err != nil {
				t.Error(err)
			}
		})
	}
	first := s.coordinate(t.Context(), t, nil)
	s.complete(t, first)
	if first.Tasks != 27 || first.Exit() != engine.ExitDone {
		t.Errorf("%d tasks, exit code %d; want 27, 0", first.Tasks, first.Exit())
	}
	second := s.coordinate(t.Context(), t, nil)
	if second.Run != first.Run+1 {
		t.Errorf("run %d after %d", second.Run, first.Run)
	}
	for _, a := range second.Result.Accounts {
		for _, m := range a.Mailboxes {
			if m.Written != 0 || !m.Complete {
				t.Errorf("the second run wrote %d in %s/%s, which is %s", m.Written, a.Source, m.Mailbox, m.State)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// A worker that is to end when nothing is left does.
func TestWorkerEndsOnce(t *testing.T) {
	t.Parallel()
	s := newCalmSetup(t, mail{Sources: 2, Mailboxes: 3, Messages: 2, Lanes: 4})
	ended := make(chan int64, 1)
	go func() {
		c, err := s.cluster(t.Context(), true)
		if err != nil {
			t.Error(err)
		}
		defer c.Close()
		for { // until the run has begun
			if r, err := c.LastRun(t.Context()); err == nil && r.Number > 0 {
				break
			}
		}
		n, err := s.work(t.Context(), "once", true, nil)
		if err != nil {
			t.Error(err)
		}
		ended <- n
	}()
	s.complete(t, s.coordinate(t.Context(), t, nil))
	if n := <-ended; n != 6 {
		t.Errorf("it did %d tasks, want 6", n)
	}
}

// Workers and nodes of the cluster are killed at random: what counts in the end
// is what an undisturbed run writes, and no task ever had two owners (I2).
func TestWorkersAndNodesAreKilled(t *testing.T) {
	t.Parallel()
	mailboxes, kills := 10, 3
	if n, err := strconv.Atoi(os.Getenv("MAILHAUL_CLUSTER")); err == nil { // make cluster
		mailboxes, kills = n/4, n/10
	}
	server := natsserver.StartCluster(t)
	s := newSetup(t, server, mail{Sources: 4, Mailboxes: mailboxes, Messages: 20, Lanes: 3, Delay: 5 * time.Millisecond})
	if c, err := s.cluster(t.Context(), true); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	workers := make([]*process, 4)
	for i := range workers {
		workers[i] = s.start(t)
	}
	over := make(chan struct{})
	var killing sync.WaitGroup
	killing.Go(func() {
		for n := range kills {
			select {
			case <-over:
				return
			case <-time.After(rand.N(time.Second)): // that is what is tested: any moment
			}
			i := rand.IntN(len(workers))
			workers[i].kill()
			workers[i] = s.start(t)
			if n%3 == 1 {
				node := server.Nodes[rand.IntN(len(server.Nodes))]
				node.Kill()
				node.Start(t)
			}
		}
	})
	r := s.coordinate(t.Context(), t, nil)
	close(over)
	killing.Wait()
	s.complete(t, r)
}

// A worker that was stopped past its lease changes nothing when it comes back.
func TestStoppedWorkerChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSetup(t, natsserver.Start(t), mail{Sources: 1, Mailboxes: 1, Messages: 800, Lanes: 2, Delay: 10 * time.Millisecond})
	c, err := s.cluster(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stopped := s.start(t)
	results := make(chan *coordinator.Result, 1)
	go func() { results <- s.coordinate(t.Context(), t, nil) }()
	task := ""
	for task == "" { // until it has written, and committed, something: the first commits come before that
		for m, err := range segments.All(t.Context(), c.Books) {
			if err == nil && m.Checkpoint("files", "test://files") != nil {
				task = m.Task
			}
		}
	}
	before, err := segments.Load(t.Context(), c.Books, task)
	if err != nil {
		t.Fatal(err)
	}
	if err := stopped.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The lock of the stopped one would be told as a second owner's.
	if err := os.Rename(filepath.Join(s.Mail.Folder, "owner-"+task), filepath.Join(s.Mail.Folder, "stopped")); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	s.complete(t, <-results)
	done, err := segments.Load(t.Context(), c.Books, task)
	if err != nil {
		t.Fatal(err)
	}
	if done.State != segments.Done || done.Fence <= before.Fence {
		t.Fatalf("the task is %s with fence %d, after %d", done.State, done.Fence, before.Fence)
	}
	if err := stopped.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(stopped.said.String(), "given back") {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // until it has noticed
	}
	after, err := segments.Load(t.Context(), c.Books, task)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(done, after); diff != "" {
		t.Errorf("it changed the manifest:\n%s", diff)
	}
	s.check(t, []sink.TaskCheckpoint{{Task: task, Checkpoint: after.Checkpoint("files", "test://files")}})
}

// A run that is stopped leaves no tasks behind for workers that come later.
func TestStopTakesBackWhatNobodyBegan(t *testing.T) {
	t.Parallel()
	s := newSetup(t, natsserver.Start(t), mail{Sources: 1, Mailboxes: 5, Messages: 1, Lanes: 1})
	stop := make(chan struct{})
	close(stop)
	r := s.coordinate(t.Context(), t, stop)
	if r.Exit() != engine.ExitStopped {
		t.Errorf("exit code %d", r.Exit())
	}
	n, err := s.work(t.Context(), "w", true, nil)
	if err != nil || n != 0 {
		t.Errorf("a worker did %d tasks of a run that was stopped: %v", n, err)
	}
}
