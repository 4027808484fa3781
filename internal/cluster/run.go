package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Keys of the books that aren't a task's.
const (
	runKey      = "run"
	pipelineKey = "pipeline"
)

// CoordinatorKey is the key of the lease that one coordinator has.
const CoordinatorKey = "coordinator"

// Stage is how far a run is.
type Stage string

// The stages of a run.
const (
	Listing Stage = "listing" // the coordinator looks what there is: more tasks may come
	Working Stage = "working" // all tasks are in the queue
	Ended   Stage = "ended"
)

// Run is the run under way, or the last one.
type Run struct {
	Number int64     `json:"number"`
	Stage  Stage     `json:"stage"`
	File   string    `json:"file"` // hash of the coordinator's pipeline file
	Began  time.Time `json:"began"`
	Tasks  int       `json:"tasks"` // once it is Working
	Exit   int       `json:"exit"`  // once it has Ended
}

// patience is how long NATS may take to answer: a cluster that lost a node
// needs some seconds to have a leader again.
const patience = time.Minute

// Insist calls f until it succeeds, for as long as NATS may take to answer. What
// f does must be harmless to do again.
func Insist(ctx context.Context, f func(context.Context) error) error {
	for began, wait := time.Now(), 50*time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := f(try)
		cancel()
		if err == nil || ctx.Err() != nil || !silent(err) || time.Since(began) > patience {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// silent reports whether an error says that nobody answered, or nobody who
// could decide.
func silent(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Code == http.StatusServiceUnavailable && !disabled(err)
	}
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, nats.ErrDisconnected)
}

// Pipeline returns the id of the pipeline, which stands in the markers of its
// targets. The first who asks makes it.
func (c *Cluster) Pipeline(ctx context.Context) (id string, err error) {
	err = Insist(ctx, func(ctx context.Context) error {
		_, err := c.Books.Create(ctx, pipelineKey, []byte(rand.Text()))
		if err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
			return err
		}
		e, err := c.Books.Get(ctx, pipelineKey)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nats.ErrTimeout // it is there: a replica that lags doesn't know yet
		}
		if err == nil {
			id = string(e.Value())
		}
		return err
	})
	if err != nil {
		return "", Wrap(err, "find the id of the pipeline")
	}
	return id, nil
}

// LastRun returns the run under way, or the last one; its Number is 0 where
// there was none.
func (c *Cluster) LastRun(ctx context.Context) (r Run, err error) {
	var e jetstream.KeyValueEntry
	err = Insist(ctx, func(ctx context.Context) (err error) {
		e, err = c.Books.Get(ctx, runKey)
		return err
	})
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Run{}, nil
	}
	if err != nil {
		return Run{}, Wrap(err, "read which run is under way")
	}
	if err := json.Unmarshal(e.Value(), &r); err != nil {
		return Run{}, fault.New(fault.Bug, "read which run is under way: %w", err)
	}
	return r, nil
}

// SetRun says how far a run is. Only the coordinator calls it, which has a
// lease on being the only one.
func (c *Cluster) SetRun(ctx context.Context, r Run) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fault.Wrap(fault.Bug, err, "write which run is under way")
	}
	err = Insist(ctx, func(ctx context.Context) error {
		_, err := c.Books.Put(ctx, runKey, b)
		return err
	})
	if err != nil {
		return Wrap(err, "write which run is under way")
	}
	return nil
}
