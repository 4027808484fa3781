package remote_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/remote"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
)

func openSink(t testing.TB, s wire.Session) *remote.Sink {
	t.Helper()
	return openSinkOn(t, connect(t, sinkOf(s)))
}

func openSinkOn(t testing.TB, conn *remote.Conn) *remote.Sink {
	t.Helper()
	s, err := conn.OpenSink(t.Context(), remote.Spec{Name: "out"}, sink.State{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openLane(t testing.TB, s *remote.Sink) *remote.Lane {
	t.Helper()
	l, err := s.Lane(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func withUID(u int, body *message.Body) *message.Message {
	return &message.Message{
		Summary: message.Summary{ID: message.ID{Source: "alice", Mailbox: "A/B", UIDValidity: 1, UID: uint32(u)}}, Body: body,
	}
}

// Bodies of all sizes arrive as they were, in order, and each is answered
// once, in order.
func TestPutBodies(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 100, 4095, 4096, 16384, 65537, wire.MaxFrame - 1, wire.MaxFrame, wire.MaxFrame + 1, 1 << 20, 3<<20 + 5}
	rounds := 5 * len(sizes)
	next := 0
	s := openSink(t, wire.Session{Write: func(_ context.Context, m *message.Message) (string, int64, error) {
		next++
		if want := withUID(next, nil).ID; m.ID != want {
			return "", 0, fmt.Errorf("got %v, want %v", m.ID, want)
		}
		n := sizes[next%len(sizes)]
		if next%5 == 0 { // not read at all
			return fmt.Sprint(next), int64(n), nil
		}
		if err := same(m.Body, next, n); err != nil {
			return "", 0, err
		}
		var want []byte
		if next%3 == 0 {
			sum := sha256.Sum256(patternOf(next, n))
			want = sum[:]
		}
		if got := m.Body.SHA256(); m.Body.Summed() != (want != nil) || !bytes.Equal(got, want) {
			return "", 0, fmt.Errorf("the host's sum of %d octets is %x, want %x", n, got, want)
		}
		return fmt.Sprint(next), int64(n), nil
	}})
	l := openLane(t, s)
	answered := 0
	for i := 1; i <= rounds; i++ {
		n := sizes[i%len(sizes)]
		body := message.BodyOf(patternOf(i, n))
		if i%2 == 0 {
			body = message.NewBody(&pattern{seed: i, n: n}, []int64{-1, int64(n)}[i/2%2], nil)
		}
		if i%3 == 0 {
			body.WithSHA256(func() []byte { sum := sha256.Sum256(patternOf(i, n)); return sum[:] })
		}
		err := l.Put(t.Context(), withUID(i, body), func(r sink.Receipt, err error) {
			answered++
			if want := (sink.Receipt{Path: fmt.Sprint(i), Octets: int64(n)}); err != nil || r != want || answered != i {
				t.Errorf("message %d was answered as number %d: %+v, %v", i, answered, r, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil || answered != rounds {
		t.Errorf("%v, %d of %d answered", err, answered, rounds)
	}
	if err := l.Put(t.Context(), withUID(1, nil), nil); !fault.Is(err, fault.Bug) {
		t.Errorf("Put after Close says %v", err)
	}
}

func TestPutRecord(t *testing.T) {
	t.Parallel()
	want := &message.Record{
		Octets: 7, SHA256: "ab", Files: map[string]string{"archive": "a.eml"}, Changed: []string{"clean"},
		Problems: []string{"bad date"}, Replaces: true,
	}
	s := openSink(t, wire.Session{Write: func(_ context.Context, m *message.Message) (string, int64, error) {
		if m.Body != nil || !cmp.Equal(m.Record, want) {
			return "", 0, errors.New(cmp.Diff(want, m.Record))
		}
		return "", 0, nil
	}})
	l := openLane(t, s)
	m := withUID(1, nil)
	m.Record = want
	if err := l.Put(t.Context(), m, func(_ sink.Receipt, err error) {
		if err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A body that breaks off reaches the sink as an error, whether any of it was
// sent before or not; done gets the body's own error, and the lane goes on.
func TestPutBrokenBody(t *testing.T) {
	t.Parallel()
	var saw []error
	s := openSink(t, wire.Session{Write: func(_ context.Context, m *message.Message) (string, int64, error) {
		_, err := io.Copy(io.Discard, m.Body)
		saw = append(saw, err)
		return "", 0, err
	}})
	l := openLane(t, s)
	cut := fault.New(fault.Unavailable, "connection reset")
	var got []error
	done := func(_ sink.Receipt, err error) { got = append(got, err) }
	for i, n := range []int{10, 3 << 20, 0} {
		body := message.NewBody(io.MultiReader(&pattern{n: n}, failing{cut}), -1, nil)
		if i == 2 {
			body = message.BodyOf([]byte("whole"))
		}
		if err := l.Put(t.Context(), withUID(i, body), done); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || !errors.Is(got[0], cut) || !errors.Is(got[1], cut) || got[2] != nil {
		t.Errorf("done got %v", got)
	}
	if len(saw) != 3 || !fault.Is(saw[0], fault.Unavailable) || !fault.Is(saw[1], fault.Unavailable) || saw[2] != nil {
		t.Errorf("the sink saw %v", saw)
	}
}

// A sink may refuse a large message before it has read it.
func TestAnswerBeforeTheBodyIsRead(t *testing.T) {
	t.Parallel()
	s := openSink(t, wire.Session{Write: func(_ context.Context, m *message.Message) (string, int64, error) {
		if m.ID.UID == 2 {
			panic("the second")
		}
		return "", 0, fault.New(fault.Full, "no room").WithHint("make some")
	}})
	l := openLane(t, s)
	var got []error
	for i := 1; i <= 2; i++ {
		body := message.NewBody(&pattern{n: 20 << 20}, -1, nil)
		if err := l.Put(t.Context(), withUID(i, body), func(_ sink.Receipt, err error) { got = append(got, err) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if len(got) != 2 || !fault.Is(got[0], fault.Full) || fault.As(got[0]).Hint != "make some" || !fault.Is(got[1], fault.Bug) {
		t.Errorf("got %v", got)
	}
}

// When its context is cancelled a lane dies within a second: each accepted
// Put is answered once, the next Put says why.
func TestLaneCancel(t *testing.T) {
	leakCheck(t)
	entered := make(chan struct{})
	var once sync.Once
	s := openSink(t, wire.Session{Write: func(ctx context.Context, m *message.Message) (string, int64, error) {
		once.Do(func() { close(entered) })
		<-ctx.Done()
		return "", 0, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	l, err := s.Lane(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var cancelled atomic.Int64
	go func() {
		<-entered
		cancelled.Store(time.Now().UnixNano())
		cancel()
	}()
	var got counted
	accepted := 0
	for err == nil { // until the window is full, and beyond
		err = l.Put(t.Context(), withUID(1, message.BodyOf(make([]byte, 100<<10))), func(_ sink.Receipt, err error) { got.add(err) })
		if err == nil {
			accepted++
		}
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Put says %v", err)
	}
	if err := l.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("Close says %v", err)
	}
	if took := time.Since(time.Unix(0, cancelled.Load())); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	if len(got.errs) != accepted {
		t.Errorf("%d accepted, %d answered", accepted, len(got.errs))
	}
	for _, err := range got.errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("done got %v", err)
		}
	}
}

func TestFlushAndCommitted(t *testing.T) {
	t.Parallel()
	var committed []byte
	answer := []byte{0, 255}
	s := openSink(t, wire.Session{
		Flush:     func(context.Context) ([]byte, error) { return answer, nil },
		Committed: func(_ context.Context, c []byte) error { committed = c; return nil },
	})
	for _, want := range [][]byte{{0, 255}, {}, nil} {
		answer = want
		c, err := s.Flush(t.Context())
		if err != nil || !cmp.Equal([]byte(c), want) {
			t.Errorf("flushed %#v, %v, want %#v", c, err, want)
		}
		if err := s.Committed(t.Context(), c); err != nil || !cmp.Equal(committed, want) {
			t.Errorf("committed %#v, %v, want %#v", committed, err, want)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Seal reaches a sink that has the power, a Put may be answered while the Flush
// that follows runs, and its error keeps its class.
func TestSeal(t *testing.T) {
	t.Parallel()
	var calls []string
	flushing, written := make(chan struct{}), make(chan struct{})
	sealed := error(nil)
	s := openSink(t, wire.Session{
		Write: func(context.Context, *message.Message) (string, int64, error) {
			<-flushing
			calls = append(calls, "Write")
			return "", 0, nil
		},
		Seal: func(context.Context) error { calls = append(calls, "Seal"); return sealed },
		Flush: func(ctx context.Context) ([]byte, error) {
			close(flushing)
			select {
			case <-written:
			case <-ctx.Done():
			}
			calls = append(calls, "Flush")
			return []byte("c"), nil
		},
	})
	if !s.Seals() {
		t.Fatal("it has the power, and the host doesn't know it")
	}
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := openLane(t, s)
	if err := l.Put(t.Context(), withUID(1, message.BodyOf(nil)), func(sink.Receipt, error) { close(written) }); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Flush(t.Context()); err != nil || string(c) != "c" {
		t.Errorf("flushed %q, %v", c, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if want := []string{"Seal", "Write", "Flush"}; !cmp.Equal(calls, want) {
		t.Errorf("the sink's calls returned in the order %v, want %v", calls, want)
	}
	sealed = fault.New(fault.Full, "no room")
	if err := s.Seal(t.Context()); !fault.Is(err, fault.Full) {
		t.Errorf("a Seal that fails: %v", err)
	}
	other := openSink(t, wire.Session{})
	if other.Seals() {
		t.Error("a sink without the power is said to have it")
	}
	if err := other.Seal(t.Context()); !fault.Is(err, fault.Bug) {
		t.Errorf("Seal of a sink that can't: %v", err)
	}
}

// A target that answers late refuses single messages.
func TestFlushWithRefusals(t *testing.T) {
	t.Parallel()
	id := message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 7, UID: 3}
	var all error = message.Refusals{{ID: id, Err: fault.New(fault.Message, "the key is too long").WithReason("name_refused").WithHint("a shorter one")}}
	checkpoint := []byte("c")
	s := openSink(t, wire.Session{Flush: func(context.Context) ([]byte, error) { return checkpoint, all }})
	c, err := s.Flush(t.Context())
	var refused message.Refusals
	if string(c) != "c" || !errors.As(err, &refused) || len(refused) != 1 || refused[0].ID != id {
		t.Fatalf("flushed %q, %v", c, err)
	}
	if f := fault.As(refused[0].Err); f == nil || f.Class != fault.Message || f.Reason != "name_refused" || f.Hint != "a shorter one" {
		t.Errorf("refused with %+v", f)
	}
	checkpoint = nil // nothing is durable: the sink has failed
	if _, err := s.Flush(t.Context()); err == nil || errors.As(err, &refused) {
		t.Errorf("flushed nothing: %v, want the error alone", err)
	}
}

func TestSinkState(t *testing.T) {
	t.Parallel()
	for _, want := range []wire.SinkState{
		{}, {Pipeline: "p", Checkpoint: []byte("c"), Known: true, Adopt: true, Rewrite: true}, {Checkpoint: []byte{}},
		{Fence: wire.Fence{Task: "3f9a", Number: 1<<63 + 5}, Store: "/run/store"},
	} {
		var got wire.SinkState
		a := sinkOf(wire.Session{})
		a.Open = func(_ context.Context, o wire.Opening) (*wire.Session, error) {
			got = o.Sink
			return &wire.Session{}, nil
		}
		_, err := connect(t, a).OpenSink(t.Context(), remote.Spec{}, sink.State{
			Pipeline: want.Pipeline, Checkpoint: want.Checkpoint, Known: want.Known, Adopt: want.Adopt, Rewrite: want.Rewrite,
			Store: want.Store, Fence: sink.Fence(want.Fence),
		})
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Error(err, diff)
		}
	}
}

// More tasks than one request takes are merged by one call, in their order.
func TestMerge(t *testing.T) {
	t.Parallel()
	var got []wire.TaskCheckpoint
	s := openSink(t, wire.Session{Merge: func(_ context.Context, tasks []wire.TaskCheckpoint) ([]byte, error) {
		if len(tasks) == 0 {
			return nil, fault.New(fault.Full, "nothing to merge")
		}
		got = tasks
		return []byte("merged"), nil
	}})
	var want []wire.TaskCheckpoint
	var tasks []sink.TaskCheckpoint
	for i := range 70 {
		w := wire.TaskCheckpoint{Task: fmt.Sprint("t", i), Fence: uint64(i) << 40, Done: i%2 == 0}
		if i%3 > 0 {
			w.Checkpoint = bytes.Repeat([]byte{byte(i)}, i%3>>1<<16)
		}
		want = append(want, w)
		tasks = append(tasks, sink.TaskCheckpoint{Task: w.Task, Fence: w.Fence, Checkpoint: w.Checkpoint, Done: w.Done})
	}
	cp, err := s.Merge(t.Context(), tasks)
	if err != nil || string(cp) != "merged" {
		t.Errorf("merged as %q, %v", cp, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%d tasks came, not as the %d that were sent", len(got), len(want))
	}
	if _, err := s.Merge(t.Context(), nil); !fault.Is(err, fault.Full) {
		t.Errorf("the sink's own error came as %v", err)
	}
	if _, err := openSink(t, wire.Session{}).Merge(t.Context(), tasks); !fault.Is(err, fault.Config) {
		t.Errorf("a sink that merges nothing: %v", err)
	}
}

// A lone message goes out at once: it doesn't wait for others.
func TestLoneMessage(t *testing.T) {
	t.Parallel()
	s := openSink(t, wire.Session{Write: func(context.Context, *message.Message) (string, int64, error) { return "", 0, nil }})
	l := openLane(t, s)
	done := make(chan error)
	began := time.Now()
	const rounds = 200
	for i := range rounds {
		if err := l.Put(t.Context(), withUID(i, message.BodyOf(make([]byte, 4096))), func(_ sink.Receipt, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	each := time.Since(began) / rounds
	t.Logf("%v a message", each)
	if each > time.Second { // a loaded machine takes tens of milliseconds
		t.Errorf("a lone message takes %v", each)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// spoiler is a connection that changes one octet on its way to the host,
// after so many.
type spoiler struct {
	net.Conn
	left *atomic.Int64
}

func (s spoiler) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	for i := range p[:n] {
		// Only within a run of our own data: gRPC itself notices the rest.
		if p[i] == 'x' && s.left.Add(-1) == 0 {
			p[i] = 'y'
		}
	}
	return n, err
}

func TestCorruption(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1000, 1 << 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			xs := make([]byte, n)
			for i := range xs {
				xs[i] = 'x'
			}
			left := &atomic.Int64{}
			left.Store(int64(n)/2 + 100)
			conn := connectWith(t, sourceOf(wire.Session{Fetch: bodies(func(message.ID) *message.Body { return message.BodyOf(xs) })}),
				wire.NewMemory(wire.NewPool(), nil), wire.NewMemory(wire.NewPool(), nil), func(c net.Conn) net.Conn { return spoiler{c, left} })
			o, err := conn.OpenSource(t.Context(), remote.Spec{})
			if err != nil {
				t.Fatal(err)
			}
			var last error
			for f, err := range o.Source.Fetch(t.Context(), source.FetchRequest{IDs: uids(1, 1)}) {
				if err != nil {
					last = err
					continue
				}
				if _, err := io.Copy(io.Discard, f.Message.Body); !fault.Is(err, fault.Bug) {
					t.Errorf("the body ends in %v, want a Bug", err)
				}
			}
			mustContain(t, last, "plugin test", "CRC-32C")
			if !fault.Is(last, fault.Bug) {
				t.Errorf("%v isn't a Bug", last)
			}
		})
	}
}

// 64 MiB go both ways in a fraction of their size.
func TestLargeMessageBounded(t *testing.T) {
	const size, bound = 64 << 20, 40 << 20
	peak := watchHeap(t)
	s := openSource(t, wire.Session{Fetch: bodies(func(message.ID) *message.Body {
		return message.NewBody(&pattern{n: size}, size, nil)
	})})
	out := openSink(t, wire.Session{Write: func(_ context.Context, m *message.Message) (string, int64, error) {
		time.Sleep(100 * time.Millisecond) // everything before it fills up
		return "", size, same(m.Body, 0, size)
	}})
	l := openLane(t, out)
	for f, err := range s.Fetch(t.Context(), source.FetchRequest{IDs: uids(1, 1)}) {
		if err != nil {
			t.Fatal(err)
		}
		err := l.Put(t.Context(), f.Message, func(_ sink.Receipt, err error) {
			if err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if p := peak(); p > bound {
		t.Errorf("the heap grew by %d MiB, both hosts and both plugins together; at most %d", p>>20, bound>>20)
	} else {
		t.Logf("the heap grew by %d MiB", p>>20)
	}
}

// watchHeap returns a function that says how much the heap grew at most.
func watchHeap(t *testing.T) func() uint64 {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, peak := m.HeapInuse, m.HeapInuse
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-stopped
		return peak - before
	}
}

// A plugin in another language may leave Committed out of its services.
func TestOnlyCommittersHearOfCommits(t *testing.T) {
	t.Parallel()
	a := sinkOf(wire.Session{Committed: func(context.Context, []byte) error {
		t.Error("Committed was called")
		return nil
	}})
	a.Capabilities = nil
	s, err := connect(t, a).OpenSink(t.Context(), remote.Spec{}, sink.State{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Committed(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
