package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/remote"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// The benchmarks have both ends in one process, over a unix socket: cpu-s/GB
// is what the two cost together. One operation is a message; run them with
// -benchtime 100000x for messages of 4 KiB.

var loads = []struct {
	name   string
	size   int
	stream bool // the body comes from a reader, as a network source's does
}{
	{"4KiB", 4 << 10, false}, {"4KiB-streamed", 4 << 10, true}, {"64KiB-streamed", 64 << 10, true}, {"1MiB-streamed", 1 << 20, true},
}

// bodyOf returns a function that makes bodies without work of its own.
func bodyOf(size int, stream bool) func() *message.Body {
	mem := patternOf(0, size)
	if !stream {
		return func() *message.Body { return message.BodyOf(mem) }
	}
	return func() *message.Body { return message.NewBody(onlyReader{bytes.NewReader(mem)}, int64(size), nil) }
}

type onlyReader struct{ io.Reader }

func fast(b testing.TB, a wire.Author) *remote.Conn {
	host, plugin := arenasOf(b, wire.Places(0))
	return connectWith(b, a, wire.NewMemory(wire.NewPool(), host), wire.NewMemory(wire.NewPool(), plugin), func(c net.Conn) net.Conn { return c })
}

// measure starts a measurement and returns what ends it.
func measure(b *testing.B, size int) func() {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	before := cpu(b)
	b.ResetTimer()
	began := time.Now()
	return func() {
		took := time.Since(began)
		b.StopTimer()
		gb := float64(b.N) * float64(size) / 1e9
		b.ReportMetric((cpu(b)-before).Seconds()/gb, "cpu-s/GB")
		b.ReportMetric(float64(b.N)/took.Seconds(), "messages/s")
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkFetch(b *testing.B) {
	for _, l := range loads {
		b.Run(l.name, func(b *testing.B) {
			fetch := fetcher(b, bodyOf(l.size, l.stream))
			stop := measure(b, l.size)
			fetch(b.N)
			stop()
		})
	}
}

// fetcher returns what fetches n messages over the wire and reads them.
func fetcher(b testing.TB, body func() *message.Body) func(n int) {
	o, err := fast(b, sourceOf(wire.Session{Fetch: bodies(func(message.ID) *message.Body { return body() })})).
		OpenSource(b.Context(), remote.Spec{})
	if err != nil {
		b.Fatal(err)
	}
	return func(want int) {
		n := 0
		for f, err := range o.Source.Fetch(b.Context(), source.FetchRequest{Mailbox: "INBOX", IDs: uids(want, 1000)}) {
			if err == nil {
				_, err = f.Message.Body.WriteTo(io.Discard)
			}
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != want {
			b.Fatalf("%d messages of %d", n, want)
		}
	}
}

// A stage answers one message before it gets the next: no frame may wait for
// more.
func BenchmarkApply(b *testing.B) {
	a := sourceOf(wire.Session{Apply: func(context.Context, *message.Message) (int, error) { return int(stage.Keep), nil }})
	a.Kind = wire.KindStage
	s, err := fast(b, a).OpenStage(b.Context(), remote.Spec{Name: "st"}, wire.Prepared{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if _, err := s.Apply(b.Context(), withUID(1, nil)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, l := range loads {
		b.Run(l.name, func(b *testing.B) {
			put, end := putter(b, l.size, bodyOf(l.size, l.stream))
			stop := measure(b, l.size)
			put(b.N)
			end()
			stop()
		})
	}
}

// putter returns what writes n messages over the wire and waits for their
// answers, and what ends it.
func putter(b testing.TB, size int, body func() *message.Body) (put func(n int), end func()) {
	s := openSinkOn(b, fast(b, sinkOf(wire.Session{Write: func(_ context.Context, m *message.Message) (string, int64, error) {
		n, err := m.Body.WriteTo(io.Discard)
		return "a/b/c.eml", n, err
	}})))
	lane := openLane(b, s)
	var failed error
	var open sync.WaitGroup
	answered, sent := 0, 0
	put = func(n int) {
		defer open.Wait()
		for range n {
			open.Add(1)
			sent++
			err := lane.Put(b.Context(), withUID(sent, body()), func(r sink.Receipt, err error) {
				defer open.Done()
				answered++
				if err == nil && r.Octets != int64(size) {
					err = fmt.Errorf("%d octets written", r.Octets)
				}
				if err != nil {
					failed = err
				}
			})
			if err != nil {
				open.Done()
				b.Fatal(err)
			}
		}
	}
	return put, func() {
		if err := lane.Close(); err != nil || failed != nil {
			b.Fatal(err, failed)
		}
		if answered != sent {
			b.Fatalf("%d messages of %d", answered, sent)
		}
	}
}

// BenchmarkList is what a summary with a header costs.
func BenchmarkList(b *testing.B) {
	header := message.NewHeader(bytes.Repeat([]byte("Received: from a by b; Fri, 1 Jan 2021 00:00:00 +0000\r\n"), 20))
	a := sourceOf(wire.Session{List: func(_ context.Context, r wire.ListRequest) iter.Seq2[message.Summary, error] {
		return func(yield func(message.Summary, error) bool) {
			for i := range r.Limit {
				s := message.Summary{ID: message.ID{Mailbox: r.Mailbox, UIDValidity: 1, UID: uint32(i)}, Size: 4096, Header: header}
				if !yield(s, nil) {
					return
				}
			}
		}
	}})
	o, err := fast(b, a).OpenSource(b.Context(), remote.Spec{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for _, err := range o.Source.List(b.Context(), source.ListRequest{Mailbox: "INBOX", Limit: b.N}) {
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "summaries/s")
	if n != b.N {
		b.Fatalf("%d summaries of %d", n, b.N)
	}
}
