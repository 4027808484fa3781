package segments_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// childEnv tells a child process when to die, and where its task is.
const childEnv = "SEGMENTS_TEST_CHILD"

// child commits two messages, and dies in the commit of the third.
func child() {
	if err := commitAndDie(strings.Fields(os.Getenv(childEnv))); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	os.Exit(1)
}

func commitAndDie(args []string) error {
	at, size, server, socket, address, task, dir := args[0], args[1], args[2], args[3], args[4], args[5], args[6]
	ctx := context.Background()
	nc, err := nats.Connect(server)
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	kv, err := js.KeyValue(ctx, "tasks")
	if err != nil {
		return err
	}
	where, err := objects.Parse(address)
	if err != nil {
		return err
	}
	bucket, err := objects.Dial(socket, where)
	if err != nil {
		return err
	}
	last := false
	l, err := segments.Open(ctx, segments.Options{Task: task, Fence: 1, Pipeline: "p", Objects: bucket, Dir: dir,
		Manifests: &mortal{kv, func(when string) {
			if last && when == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}}})
	if err != nil {
		return err
	}
	b, err := l.Box(ctx, "alice", "INBOX", 1)
	if err != nil {
		return err
	}
	tg, err := l.Target(ctx, "eml", "/export/eml")
	if err != nil {
		return err
	}
	for n := uint32(1); ; n++ {
		last = n == 3
		if err := l.Commit(ctx, epoch(b, tg.ID, n, size == "big")); err != nil {
			return err
		}
	}
}

// mortal is a bucket in NATS whose user may die in a call.
type mortal struct {
	jetstream.KeyValue
	die func(when string)
}

func (k *mortal) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	k.die("before")
	n, err := k.KeyValue.Update(ctx, key, value, revision)
	k.die("after")
	return n, err
}
