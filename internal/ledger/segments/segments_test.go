package segments_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/test/leak"
	"github.com/mailhaul/pipeline/test/ledgertest"
	"github.com/mailhaul/pipeline/test/natsserver"
	"github.com/mailhaul/pipeline/test/objectstore"
	"github.com/mailhaul/pipeline/test/s3server"
)

var _ engine.Ledger = (*segments.Ledger)(nil)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
	}
	code := leak.Main(m)
	objectstore.Remove()
	os.Exit(code)
}

// place is where tasks have their ledgers: a NATS server and a bucket.
type place struct {
	nats      *natsserver.Server
	s3        *s3server.Server
	socket    string
	manifests jetstream.KeyValue
	tasks     atomic.Int64
}

// newPlace starts servers of its own.
func newPlace(t testing.TB) *place {
	t.Helper()
	p := &place{nats: natsserver.Start(t), s3: s3server.Start(t, "mail")}
	p.socket = objectstore.Start(t, p.s3.Environ())
	var err error
	p.manifests, err = p.nats.Connect(t).CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "tasks"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// bucket is where the objects are.
func (p *place) bucket(t testing.TB) *objects.Bucket {
	t.Helper()
	return objectstore.Bucket(t, p.socket, p.s3.Address("mail/acme"))
}

// task makes the options of a new task, with a fence that rises by one with
// each call of next.
func (p *place) task(t testing.TB) *task {
	t.Helper()
	return &task{segments.Options{
		Task: fmt.Sprintf("t%d", p.tasks.Add(1)), Run: 1, Pipeline: "p", Manifests: p.manifests, Objects: p.bucket(t), Dir: t.TempDir(),
	}}
}

type task struct{ segments.Options }

// next returns the options of the next owner.
func (k *task) next() segments.Options {
	k.Fence++
	return k.Options
}

// open takes the task for the next owner.
func (k *task) open(t testing.TB) *segments.Ledger {
	t.Helper()
	l, err := segments.Open(context.Background(), k.next())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // most are closed by then
	return l
}

// Open, End and Crash make a task a store of the suite.
func (k *task) Open(t testing.TB) ledgertest.Ledger { t.Helper(); return k.open(t) }

func (k *task) End(t testing.TB, l ledgertest.Ledger) {
	t.Helper()
	if err := l.(*segments.Ledger).Done(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	k.Crash(t, l)
}

func (k *task) Crash(t testing.TB, l ledgertest.Ledger) {
	t.Helper()
	if err := l.(*segments.Ledger).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSuite(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	ledgertest.Run(t, func(t testing.TB) ledgertest.Store { return p.task(t) })
}
