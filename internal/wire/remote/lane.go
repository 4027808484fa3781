package remote

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// Lane is one stream of messages to a sink. One goroutine at a time calls Put
// and Close.
type Lane struct {
	conn   *Conn
	stream pluginpb.Sink_WriteClient
	ctx    context.Context
	cancel context.CancelFunc
	w      *wire.Writer
	ended  chan struct{} // closed when every done was called and none will be

	watch   *watch
	sending atomic.Bool  // the stream is to take a frame
	owed    atomic.Int64 // answers to what was put whole

	mu      sync.Mutex
	changed sync.Cond
	queue   []pending // what awaits its answer, in order; the last may still be put
	head    int       // index of the first
	putting bool
	over    bool  // the stream has ended
	err     error // why, nil when it ended well
}

type pending struct {
	done   func(sink.Receipt, error)
	broken error // the body's own error
}

// Lane opens a lane. When ctx is cancelled the lane dies.
func (s *Sink) Lane(ctx context.Context) (*Lane, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := s.conn.sink.Write(ctx)
	if err != nil {
		err = s.conn.lost(ctx, err)
		cancel()
		return nil, err
	}
	l := &Lane{conn: s.conn, stream: stream, ctx: ctx, cancel: cancel, ended: make(chan struct{})}
	l.changed.L = &l.mu
	l.watch = s.conn.watch("Write", func() int {
		if l.sending.Load() || l.owed.Load() > 0 {
			return once
		}
		return nothing
	})
	l.w = wire.NewWriter(s.conn.o.Memory, func(f *wire.Frame) error {
		l.sending.Store(true)
		err := stream.SendMsg(f)
		l.sending.Store(false)
		l.watch.progress.Add(1)
		return err
	})
	l.w.Session(s.number)
	go l.receive()
	return l, nil
}

// Put sends a message. It reads m's body to its end and returns when all of
// it is handed over, not when it is written; m isn't used after that. done is
// called later, exactly once, in the order of the Puts, from a goroutine of
// the lane: with the receipt, with the sink's error, or with the lane's when
// it dies. A done that blocks holds up the lane.
//
// A body whose Read fails reaches the sink as one that isn't whole; done gets
// the body's own error. When Put itself returns an error done isn't called:
// the lane is dead. ctx is looked at before the message is sent; a Put that
// waits is ended by the context that the lane was opened with.
func (l *Lane) Put(ctx context.Context, m *message.Message, done func(sink.Receipt, error)) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return l.dead()
	}
	l.queue = append(l.queue, pending{done: done})
	l.putting = true
	l.mu.Unlock()

	broken, err := l.w.Put(wire.Head(m, ""), m.Body)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.putting = false
	last := len(l.queue) - 1
	l.queue[last].broken = broken
	if err == nil {
		l.owed.Add(1)
		l.changed.Broadcast()
		return nil
	}
	l.queue = l.queue[:last]
	l.changed.Broadcast()
	// The writer knows only that the stream is gone; the receiver learns why.
	l.cancelUnlessGRPC(err)
	for !l.over {
		l.changed.Wait()
	}
	if l.err == nil {
		return err
	}
	return l.err
}

// cancelUnlessGRPC ends the stream for an error that didn't come from it, such
// as a summary that can't be encoded: nothing could be sent after it.
func (l *Lane) cancelUnlessGRPC(err error) {
	if err != io.EOF {
		l.cancel()
	}
}

func (l *Lane) dead() error {
	<-l.ended
	if l.err == nil {
		return fault.New(fault.Bug, "%s: a message was put on a lane that had ended", l.conn.o.Peer)
	}
	return l.err
}

// receive calls done for each answer, and for all that are left when the
// stream ends.
func (l *Lane) receive() {
	defer close(l.ended)
	defer l.conn.unwatch(l.watch)
	err := l.answers()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.err = true, err
	l.changed.Broadcast()
	for l.putting {
		l.changed.Wait()
	}
	if l.err == nil && l.head < len(l.queue) {
		l.err = fault.New(fault.Bug, "%s ended a lane with %d messages unanswered", l.conn.o.Peer, len(l.queue)-l.head)
	}
	for ; l.head < len(l.queue); l.head++ {
		done := l.queue[l.head].done
		l.mu.Unlock()
		done(sink.Receipt{}, l.err)
		l.mu.Lock()
	}
	l.queue = nil
}

func (l *Lane) answers() error {
	for {
		b, err := l.stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return l.conn.lost(l.ctx, err)
		}
		for _, r := range b.GetResults() {
			p, err := l.next()
			if err != nil {
				return err
			}
			err = l.conn.error(r.GetError())
			if p.broken != nil {
				err = p.broken
			}
			if err != nil {
				p.done(sink.Receipt{}, err)
				continue
			}
			p.done(sink.Receipt{Path: r.GetPath(), Octets: r.GetOctets()}, nil)
		}
		if b.GetError() != nil {
			return l.conn.error(b.GetError())
		}
	}
}

// next takes the first pending message, which has been put whole: an answer
// may come while its body is still being sent.
func (l *Lane) next() (pending, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.putting && l.head == len(l.queue)-1 {
		l.changed.Wait()
	}
	if l.head == len(l.queue) {
		return pending{}, fault.New(fault.Bug, "%s answered a message that wasn't put", l.conn.o.Peer)
	}
	l.owed.Add(-1)
	l.watch.progress.Add(1)
	p := l.queue[l.head]
	l.queue[l.head] = pending{}
	if l.head++; l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	} else if l.head >= 1024 && l.head*2 >= len(l.queue) {
		l.queue = append(l.queue[:0], l.queue[l.head:]...)
		l.head = 0
	}
	return p, nil
}

// Close says that there are no more messages, and waits until every done was
// called. It returns the error that the lane died of.
func (l *Lane) Close() error {
	if err := l.w.Close(nil); err == nil {
		_ = l.stream.CloseSend() // never fails for a client stream
	}
	<-l.ended
	l.cancel()
	if l.err != nil {
		l.w.Reclaim()
	}
	return l.err
}
