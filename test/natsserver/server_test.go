package natsserver_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/test/natsserver"
)

// A cluster goes on with two of three nodes, and has what it said was kept.
func TestClusterOutlivesANode(t *testing.T) {
	t.Parallel()
	s := natsserver.StartCluster(t)
	js := s.Connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	kv := keep(ctx, t, js, 3)
	rev, err := kv.Create(ctx, "a", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	s.Nodes[0].Kill()
	for {
		try, done := context.WithTimeout(ctx, patience)
		_, err = kv.Update(try, "a", []byte("2"), rev)
		e, getErr := kv.Get(try, "a")
		done()
		if getErr == nil && string(e.Value()) == "2" {
			break // confirmed, or done though its answer was lost
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	s.Nodes[0].Start(t)
	s.Nodes[1].Kill()
	for {
		e, err := get(ctx, kv)
		if err == nil {
			if string(e.Value()) != "2" {
				t.Fatalf("the cluster has %q, want 2", e.Value())
			}
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// One node has what it said was kept when it was killed and came back.
func TestNodeComesBack(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t)
	js := s.Connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	kv := keep(ctx, t, js, 1)
	if _, err := kv.Create(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	s.Nodes[0].Kill()
	s.Nodes[0].Start(t)
	for {
		e, err := get(ctx, kv)
		if err == nil {
			if string(e.Value()) != "1" {
				t.Fatalf("the node has %q, want 1", e.Value())
			}
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// patience is how long one question may take: what a node was asked when it was
// killed is never answered.
const patience = 2 * time.Second

func get(ctx context.Context, kv jetstream.KeyValue) (jetstream.KeyValueEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return kv.Get(ctx, "a")
}

func keep(ctx context.Context, t *testing.T, js jetstream.JetStream, replicas int) jetstream.KeyValue {
	t.Helper()
	for {
		try, done := context.WithTimeout(ctx, patience)
		kv, err := js.CreateKeyValue(try, jetstream.KeyValueConfig{Bucket: "test", Replicas: replicas})
		done()
		if err == nil {
			return kv
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
