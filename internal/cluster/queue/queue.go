// Package queue brings tasks to workers: a stream in which a message stays until
// it is said to be done, and is brought again when nobody says so in time.
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/cluster/task"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// Queue is the queue of a pipeline. It may be used by many goroutines.
type Queue struct {
	c        *cluster.Cluster
	consumer jetstream.Consumer
}

// Open opens the queue, and makes what brings its tasks where it isn't there.
func Open(ctx context.Context, c *cluster.Cluster) (*Queue, error) {
	var consumer jetstream.Consumer
	err := cluster.Insist(ctx, func(ctx context.Context) (err error) {
		consumer, err = c.Tasks.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable: "workers", AckPolicy: jetstream.AckExplicitPolicy, AckWait: c.Lease,
			MaxAckPending: -1, // tasks that wait for their account are pending too
			MaxWaiting:    1 << 14,
		})
		return err
	})
	if err != nil {
		return nil, cluster.Wrap(err, "open the queue of tasks")
	}
	return &Queue{c, consumer}, nil
}

// Put puts tasks into the queue: all of them, or it returns an error. Where an
// answer is lost a task is put again, and stands there once.
func (q *Queue) Put(ctx context.Context, tasks []*task.Task) error {
	for len(tasks) > 0 {
		some := tasks[:min(len(tasks), atOnce)]
		tasks = tasks[len(some):]
		err := cluster.Insist(ctx, func(ctx context.Context) (err error) {
			some, err = q.put(ctx, some)
			return err
		})
		if err != nil {
			return cluster.Wrap(err, "put a task into the queue")
		}
	}
	return nil
}

// atOnce is how many tasks may wait for the server's answer.
const atOnce = 1000

// put returns those tasks of which the server didn't say that it has them.
func (q *Queue) put(ctx context.Context, tasks []*task.Task) (left []*task.Task, err error) {
	answers := make([]jetstream.PubAckFuture, len(tasks))
	for i, t := range tasks {
		body, err := json.Marshal(t)
		if err != nil {
			return tasks, fault.New(fault.Bug, "write a task: %w", err)
		}
		answers[i], err = q.c.JetStream.PublishAsync(q.c.Name()+".task."+t.ID, body, jetstream.WithMsgID(fmt.Sprintf("%d-%s", t.Run, t.ID)))
		if err != nil {
			return tasks, err
		}
	}
	for i, a := range answers {
		select {
		case <-a.Ok():
		case failed := <-a.Err():
			left, err = append(left, tasks[i]), failed
		case <-ctx.Done():
			return append(left, tasks[i:]...), ctx.Err()
		}
	}
	return left, err
}

// Item is a task that was taken from the queue. Ack, Again or nothing comes
// after it; with nothing it is brought again when its time is over.
type Item struct {
	Task task.Task
	msg  jetstream.Msg
}

// ErrEmpty says that there was no task to be had in the time.
var ErrEmpty = errors.New("no task is waiting")

// Take waits for a task as long as patience; ErrEmpty when none came.
func (q *Queue) Take(ctx context.Context, patience time.Duration) (*Item, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	msg, err := q.consumer.Next(jetstream.FetchContext(ctx))
	switch {
	case err == nil:
	case ctx.Err() != nil, errors.Is(err, jetstream.ErrNoMessages), errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return nil, ErrEmpty
	default:
		return nil, cluster.Wrap(err, "take a task from the queue")
	}
	i := &Item{msg: msg}
	err = json.Unmarshal(msg.Data(), &i.Task)
	if err == nil && i.Task.ID == "" {
		err = errors.New("it names no task")
	}
	if err != nil {
		_ = msg.Term() // nobody will understand it
		return nil, fault.New(fault.Bug, "there is something in the queue that is no task: %w", err)
	}
	return i, nil
}

// Ack says that the task is done: it is brought no more. An Ack that is lost
// has the task brought again, and its manifest tells that it is done.
func (i *Item) Ack() error { return i.msg.Ack() }

// Again has the task brought again after a while.
func (i *Item) Again(after time.Duration) error { return i.msg.NakWithDelay(after) }

// Alive says that the task is being worked on.
func (i *Item) Alive() error { return i.msg.InProgress() }

// Brought is how often the task was brought, from 1.
func (i *Item) Brought() int {
	if m, err := i.msg.Metadata(); err == nil {
		return int(min(m.NumDelivered, 1<<20))
	}
	return 1
}

// Left returns how many tasks nobody has done yet.
func (q *Queue) Left(ctx context.Context) (int, error) {
	info, err := q.c.Tasks.Info(ctx)
	if err != nil {
		return 0, cluster.Wrap(err, "ask how many tasks there are")
	}
	return int(min(info.State.Msgs, 1<<31-1)), nil
}

// Clear takes out all tasks. Those that are under way are not stopped.
func (q *Queue) Clear(ctx context.Context) error {
	if err := cluster.Insist(ctx, func(ctx context.Context) error { return q.c.Tasks.Purge(ctx) }); err != nil {
		return cluster.Wrap(err, "clear the queue of tasks")
	}
	return nil
}
