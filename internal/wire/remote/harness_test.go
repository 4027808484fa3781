package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/remote"
	"github.com/mailhaul/pipeline/pkg/message"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// poisoned is a pool that spoils a buffer when it is freed: whoever still
// looks at it reads rubbish, and a test sees it.
type poisoned struct{ mem.BufferPool }

var poison = [4096]byte{0: 0xdb, 1: 0xdc, 4095: 0xdd}

func (p poisoned) Put(b *[]byte) {
	for full := (*b)[:cap(*b)]; len(full) > 0; {
		full = full[copy(full, poison[:]):]
	}
	p.BufferPool.Put(b)
}

// connect serves author on a unix socket in this process and returns the
// host's connection to it. Both sides use poisoned pools, and share memory.
func connect(t testing.TB, author wire.Author) *remote.Conn {
	t.Helper()
	host, plugin := arenasOf(t, wire.Places(0))
	return connectWith(t, author, wire.NewMemory(poisoned{wire.NewPool()}, host), wire.NewMemory(poisoned{wire.NewPool()}, plugin), nil)
}

func connectWith(t testing.TB, author wire.Author, host, plugin *wire.Memory, wrap func(net.Conn) net.Conn) *remote.Conn {
	t.Helper()
	dir, err := os.MkdirTemp("", "mw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	plugin.Share()
	server := wire.NewServer(author, slog.New(slog.NewTextHandler(io.Discard, nil)), plugin, nil)
	g := grpc.NewServer(wire.ServerOptions(wire.Options{Memory: plugin})...)
	server.Register(g)
	go g.Serve(listener)
	options := append(wire.DialOptions(wire.Options{Memory: host}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := net.Dial("unix", path)
			if err == nil && wrap != nil {
				c = wrap(c)
			}
			return c, err
		}))
	cc, err := grpc.NewClient("passthrough:plugin", options...)
	if err != nil {
		t.Fatal(err)
	}
	conn := remote.New(cc, remote.Options{Peer: "plugin test", Memory: host})
	t.Cleanup(func() {
		conn.Close()
		cc.Close()
		g.Stop()
	})
	return conn
}

// leakCheck fails the test when goroutines are left after it that weren't
// there before. Tests that use it don't run in parallel.
func leakCheck(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(time.Minute)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// sourceOf returns a source plugin whose sessions are s.
func sourceOf(s wire.Session) wire.Author {
	return wire.Author{
		Description: wire.Description{Kind: wire.KindSource, Name: "test", Version: "1.2.3", Summary: "a test",
			Schema: []byte(`{"type":"object"}`), Provides: message.AllSummary | message.NeedBody},
		Open: func(context.Context, wire.Opening) (*wire.Session, error) { c := s; return &c, nil },
	}
}

// sinkOf returns a sink plugin whose sessions are s.
func sinkOf(s wire.Session) wire.Author {
	a := sourceOf(s)
	a.Kind, a.Capabilities = wire.KindSink, []string{wire.CapabilityCommitter}
	return a
}

// bodies returns a Fetch that answers every id with the body that make makes.
func bodies(make func(id message.ID) *message.Body) func(context.Context, wire.FetchRequest, func(wire.Fetched) error) error {
	return func(_ context.Context, r wire.FetchRequest, answer func(wire.Fetched) error) error {
		for ids := range r.IDs {
			for _, id := range ids {
				m := &message.Message{Summary: message.Summary{ID: id, Have: message.NeedBody}, Body: make(id)}
				if err := answer(wire.Fetched{ID: id, Message: m}); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// uids returns ids 1 to n in batches.
func uids(n, batch int) iter.Seq[[]message.ID] {
	return func(yield func([]message.ID) bool) {
		for i := 1; i <= n; i += batch {
			var ids []message.ID
			for u := i; u < i+batch && u <= n; u++ {
				ids = append(ids, message.ID{Mailbox: "INBOX", UIDValidity: 7, UID: uint32(u)})
			}
			if !yield(ids) {
				return
			}
		}
	}
}

// pattern is n octets that differ from place to place and from seed to seed.
type pattern struct {
	seed, n, at int
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.n {
		return 0, io.EOF
	}
	k := min(len(b), p.n-p.at)
	for n := 0; n < k; {
		n += copy(b[n:k], patternFrom(p.seed, p.at+n))
	}
	p.at += k
	return k, nil
}

// period is a prime, so that the pattern falls differently into each buffer
// and frame.
const period = 65537

// patterns is one period of the pattern.
var patterns = sync.OnceValue(func() []byte {
	b := make([]byte, period)
	for i := range b {
		b[i] = byte(i*7 + i>>8*13)
	}
	return b
})

// patternFrom returns some octets of the pattern from octet i on.
func patternFrom(seed, i int) []byte { return patterns()[(i+seed)%period:] }

func patternOf(seed, n int) []byte {
	b, err := io.ReadAll(&pattern{seed: seed, n: n})
	if err != nil {
		panic(err) // a pattern's Read never fails
	}
	return b
}

// same reads r to its end and says how it differs from the pattern.
func same(r io.Reader, seed, n int) error {
	buf := make([]byte, 32<<10)
	at := 0
	for {
		k, err := r.Read(buf)
		for got := buf[:k]; len(got) > 0; {
			want := patternFrom(seed, at)
			m := min(len(got), len(want))
			if !bytes.Equal(got[:m], want[:m]) {
				return fmt.Errorf("octets %d to %d differ", at, at+m)
			}
			got, at = got[m:], at+m
		}
		if err == io.EOF && at == n {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d of %d octets: %w", at, n, err)
		}
	}
}

// counted collects what done was called with.
type counted struct {
	sync.Mutex
	errs []error
}

func (c *counted) add(err error) {
	c.Lock()
	c.errs = append(c.errs, err)
	c.Unlock()
}

func mustContain(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q doesn't say %q", err, w)
		}
	}
}
