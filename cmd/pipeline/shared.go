package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/cluster/coordinator"
	"github.com/mailhaul/pipeline/internal/cluster/letters"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// process names this process for who looks at a cluster.
func process() string {
	host, _ := os.Hostname() // the number tells enough
	return fmt.Sprintf("process %d on %s", os.Getpid(), host)
}

// cluster connects to the NATS servers of the file.
func (c *command) cluster(ctx context.Context, j *job.Job, make bool) (*cluster.Cluster, error) {
	e := j.File.Engine
	credentials, err := c.beside(e.Credentials)
	if err != nil {
		return nil, err
	}
	cl, err := cluster.Open(ctx, cluster.Options{
		URL: e.URL, Credentials: credentials, Stream: e.Stream, Replicas: e.Replicas, Lease: e.Lease, Client: "mailhaul " + process(), Log: c.logger(), Make: make,
	})
	if f := fault.As(err); f != nil && f.Key != "" {
		return nil, j.File.Place(f.Key, err)
	}
	return cl, err
}

// canShare returns an error where the command line is nothing for workers.
func (c *command) canShare(j *job.Job, f runFlags) error {
	if !j.File.Engine.Shared() {
		return nil
	}
	var given []string
	for _, c := range []struct {
		flag  string
		given bool
	}{{"--adopt", len(f.adopt) > 0}, {"--rewrite", len(f.rewrite) > 0}, {"--shard", j.Shard().Divides()}} {
		if c.given {
			given = append(given, c.flag)
		}
	}
	if len(given) > 0 {
		return fault.New(fault.Config, "%s: not for a run with workers", strings.Join(given, ", ")).WithHint("leave it out, or run with engine: {type: local}")
	}
	return nil
}

// carryOut runs the plan: here, or with workers. It returns where the dead
// letters are afterwards.
func (c *command) carryOut(ctx context.Context, j *job.Job, l *ledger.Ledger, asked asked, f runFlags, opts engine.Options) (*engine.Result, letterBox, error) {
	if !j.File.Engine.Shared() {
		r, err := engine.Run(ctx, asked.stop, opts)
		return r, l, err
	}
	cl, err := c.cluster(ctx, j, true)
	if err != nil {
		return &engine.Result{Err: err}, l, err
	}
	defer cl.Close()
	bucket, prefix, err := j.Bucket()
	if err != nil {
		return &engine.Result{Err: err}, l, err
	}
	defer bucket.Close()
	size := j.File.Engine.Range
	if slices.ContainsFunc(j.Plan.Chain.Stages(), func(s *stages.Stage) bool { return s.Kind == stages.Limit }) {
		size = 0 // it counts over a mailbox
	}
	r, err := coordinator.Run(ctx, coordinator.Options{
		Cluster: cl, Plan: j.Plan, File: j.File.Sum, Plugins: j, Range: size, Merge: j.MergeSink, Objects: bucket, Prefix: prefix, Log: opts.Log, Name: process(),
		Retry: func(task string) *status.Choice {
			switch {
			case f.retryFailed:
				return &status.Choice{}
			case f.retryTasks[task]:
				return &f.retryChoice
			}
			return nil
		},
		Events: opts.Events, Stats: opts.Stats, Stop: asked.stop, Now: time.Now(),
	})
	ending := context.WithoutCancel(ctx)
	err = errors.Join(err, l.Commit(ending, ledger.Epoch{Accounts: r.Accounts, Mailboxes: r.Mailboxes}))
	var box collected
	reading := letters.Open(cl).Each(ending, func(l *letters.Letter) error {
		box = append(box, *l)
		return nil
	})
	return &r.Result, box, errors.Join(err, reading)
}

// letterBox has dead letters.
type letterBox interface {
	Letters(ctx context.Context, f func(id message.ID, sink string, l ledger.Letter) error) error
}

// collected are the dead letters of all tasks.
type collected []letters.Letter

// Letters calls f for each.
func (c collected) Letters(_ context.Context, f func(id message.ID, sink string, l ledger.Letter) error) error {
	for i := range c {
		if err := f(c[i].ID, c[i].Sink, c[i].Letter); err != nil {
			return err
		}
	}
	return nil
}

// joined connects to the cluster of a file of which nothing was evaluated yet,
// for a verb that looks at a run.
func (c *command) joined(ctx context.Context, j *job.Job) (*cluster.Cluster, error) {
	if err := j.SettleEngine(ctx); err != nil {
		return nil, err
	}
	return c.cluster(ctx, j, false)
}

// sharedLetters calls f for the dead letters of all tasks that are meant.
func (c *command) sharedLetters(ctx context.Context, j *job.Job, choice status.Choice, f func(task string, l status.Letter) error) error {
	cl, err := c.joined(ctx, j)
	if err != nil {
		return err
	}
	defer cl.Close()
	return letters.Open(cl).Each(ctx, func(l *letters.Letter) error {
		made := status.NewLetter(l.ID, l.Sink, l.Letter)
		if !choice.Includes(&made) {
			return nil
		}
		return f(l.Task, made)
	})
}

// sharedStatus says how far the run is that workers do, or how the last one
// ended: what the ledger here doesn't know until a run has ended.
func (c *command) sharedStatus(ctx context.Context, j *job.Job) (*coordinator.Standing, error) {
	cl, err := c.joined(ctx, j)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return coordinator.Look(ctx, cl)
}
