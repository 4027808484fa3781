package popsource

import (
	"context"
	"errors"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-pop3/internal/popconn"
)

// This file is what happens when a message doesn't come. Every id that was
// pulled is answered, and one bad message is one bad message (I6).

var errNoData = errors.New("the server lists it and sends no octets")

// refused deals with a -ERR to a RETR. It is asked for once more, alone, on a
// session that begins later and says whether it is there at all.
func (f *fetcher) refused(ctx context.Context, now asked, answer error) error {
	err := popconn.Err(fault.Message, answer, "fetch "+now.id.String())
	if fault.Is(err, fault.Throttled) {
		if f.slow.Tries() >= mailnet.MaxReconnects {
			f.queue = append([]message.ID{now.id}, f.queue...)
			return err
		}
		f.log.Warn("the server asks to slow down", "answer", err.Error())
		f.queue = append([]message.ID{now.id}, f.queue...)
		f.careful = true
		return mailnet.Sleep(ctx, f.slow.Next())
	}
	before := f.retries[now.id]
	f.retries[now.id] = err
	switch {
	case before == nil || !f.last:
		f.doubtful = append(f.doubtful, now.id)
	case errors.Is(answer, errNoData):
		f.refuse(now.id, fault.New(fault.Message, "fetch %s: %w", now.id, errNoData).WithReason("no_data"))
	default:
		f.refuse(now.id, fault.New(fault.Message, "%s", err.Error()).WithReason("server_refuses"))
	}
	return nil
}

// mistaken deals with a message whose header isn't the one that the id names:
// the numbers have moved since the headers were asked for. They are asked for
// again on this session, within which numbers stay.
func (f *fetcher) mistaken(ctx context.Context, now asked) error {
	if f.sess.own {
		f.refuse(now.id, fault.New(fault.Message, "fetch %s: the header that comes isn't the one that was listed", now.id).WithReason("header_mismatch"))
		return nil
	}
	again := []message.ID{now.id}
	for _, a := range f.flight {
		again = append(again, a.id)
		if _, err := f.sess.Answer(); err != nil && !isRefused(err) {
			return err
		} else if err == nil {
			if err := f.sess.Body(popconn.MaxBody, 0).Skip(); err != nil {
				return err
			}
		}
	}
	f.flight = nil
	f.queue = append(again, f.queue...)
	return f.identify(ctx, f.sess, true)
}

// lose notes that the connection died and goes on with another. Answers come
// in the order of the questions, so it died on the first that is missing.
func (f *fetcher) lose(ctx context.Context, cause error) error {
	ids := make([]message.ID, 0, len(f.flight)+len(f.queue))
	for n, a := range f.flight {
		if n == 0 && fault.Is(cause, fault.Unavailable) {
			if f.deaths[a.id]++; f.deaths[a.id] >= maxDeaths {
				reason := "ends_connection"
				if errors.Is(cause, popconn.ErrEndless) {
					reason = "endless"
				}
				f.held = append(f.held, source.Fetched{ID: a.id,
					Err: fault.New(fault.Message, "fetch %s: each time that it is asked for: %s", a.id, cause.Error()).WithReason(reason)})
				continue
			}
			f.careful = true
		}
		ids = append(ids, a.id)
	}
	f.queue, f.flight = append(ids, f.queue...), nil
	if len(f.held) > maxHeld {
		return fault.Wrap(fault.Unavailable, cause, "fetch messages: the connection ended on each of %d messages in a row", len(f.held))
	}
	f.log.Info("a connection was lost, going on with another", "cause", cause.Error())
	sess, err := f.again(ctx, f.sess, cause, &f.slow)
	f.sess = sess
	return err
}

// refuse answers an id with an error.
func (f *fetcher) refuse(id message.ID, err error) {
	delete(f.retries, id)
	if !f.ended && !f.yield(source.Fetched{ID: id, Err: err}, nil) {
		f.ended = true
	}
}

// release answers the ids on which the connection died: another message came
// since, or all others did, so that it was theirs alone.
func (f *fetcher) release() {
	held := f.held
	f.held = nil
	for _, h := range held {
		f.refuse(h.ID, h.Err)
	}
}
