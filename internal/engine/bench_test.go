package engine_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/filter"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// nowhere is a sink that reads and forgets.
type nowhere struct{ server *server }

func (n nowhere) OpenSource(context.Context, *plan.Source, bool) (source.Opened, error) {
	return n.server.open()
}

func (n nowhere) OpenSink(context.Context, *plan.Sink, sink.State, bool) (engine.SinkSession, error) {
	return n, nil
}
func (n nowhere) OpenStage(context.Context, *stages.Stage, bool) (stage.Stage, error) {
	return nil, nil
}
func (n nowhere) Lane(context.Context) (engine.Lane, error)        { return n, nil }
func (n nowhere) Flush(context.Context) (sink.Checkpoint, error)   { return sink.Checkpoint("x"), nil }
func (n nowhere) Committed(context.Context, sink.Checkpoint) error { return nil }
func (n nowhere) Close() error                                     { return nil }
func (n nowhere) Put(_ context.Context, m *message.Message, done func(sink.Receipt, error)) error {
	_, err := io.Copy(io.Discard, m.Body)
	done(sink.Receipt{Path: "INBOX/2026-01-01-4711-a subject of common length-abcdefghij.eml"}, err)
	return err
}

// BenchmarkRun is what the engine and the ledger themselves cost a message:
// source and sink are in the same process and do next to nothing.
func BenchmarkRun(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(benchSize)
	runOver(b, b.N, b.ResetTimer)
}

const benchSize = 4096

// runOver runs a pipeline over n messages of benchSize octets; begins is called
// when all stands ready.
func runOver(tb testing.TB, n int, begins func(), filters ...string) {
	tb.Helper()
	s := newServer(n, "INBOX")
	octets := s.octets("INBOX", 4096)
	for len(octets) < benchSize {
		octets = append(octets, "0123456789abcdef0123456789abcdef0123456789abcdef\r\n"...)
	}
	octets = octets[:benchSize]
	s.octets = func(string, uint32) []byte { return octets }
	l, err := ledger.Open(tb.Context(), tb.TempDir(), "bench")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	var chain []*stages.Stage
	for i, text := range filters {
		st, err := stages.Build(stages.Config{Name: fmt.Sprint("f", i), Filter: &text}, filter.Options{})
		if err != nil {
			tb.Fatal(err)
		}
		chain = append(chain, st)
	}
	p := &plan.Plan{Chain: stages.NewChain(chain), Concurrency: 1,
		Sources: []plan.Source{{Name: "src", Selects: func(message.Mailbox) bool { return true }, Provides: serverProvides}},
		Sinks:   []plan.Sink{{Name: "files", Prepared: sink.Prepared{Target: "/files", Lanes: 4, Needs: message.NeedBody}}}}
	p.Settle()
	begins()
	res, err := engine.Run(tb.Context(), make(chan struct{}), engine.Options{Plan: p, Ledger: l, Plugins: nowhere{s}})
	if err != nil || total(res).Written != int64(n) {
		tb.Fatalf("%v: %+v", err, total(res))
	}
}
