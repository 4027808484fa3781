package popsource

import (
	"bytes"
	"context"
	"io"
	"iter"
	"strconv"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-pop3/internal/popconn"
)

const (
	// inMemory is the largest body that is read whole before it is handed
	// over. Only such a body can be fetched again unseen when it breaks off.
	inMemory = 1 << 20
	// ahead is how many messages are asked for before the ones before have
	// come, and half of it at the least: enough to hide a round trip of a
	// tenth of a second, few enough to share the work.
	ahead = 512
	// maxDeaths is how often the connection may end on a message that was
	// asked for alone. Networks cut at random, too.
	maxDeaths = 3
	// maxHeld is how many messages in a row may end the connection before it
	// is the server, not the messages, that is taken to be at fault.
	maxHeld = 8
)

// fetcher runs one Fetch on one session.
type fetcher struct {
	*Source
	req    source.FetchRequest
	sess   *session
	yield  func(source.Fetched, error) bool
	ended  bool // the consumer broke off
	closed bool // no more batches
	slow   mailnet.Backoff

	queue    []message.ID // pulled, not asked for, in order
	flight   []asked      // asked for, not answered, in order
	doubtful []message.ID // missing or refused: a fresh session will say why
	last     bool         // this is that session: its word is the last
	retries  map[message.ID]error
	deaths   map[message.ID]int
	careful  bool // one at a time, until one has come
	held     []source.Fetched

	buf []byte
	msg message.Message
}

// asked is a RETR under way.
type asked struct {
	id message.ID
	at int // index in the session's maildrop
}

// Fetch asks for messages one behind the other without waiting, as far as the
// server takes that.
func (s *Source) Fetch(ctx context.Context, req source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(yield func(source.Fetched, error) bool) {
		f := &fetcher{Source: s, req: req, yield: yield, retries: map[message.ID]error{}, deaths: map[message.ID]int{}, slow: mailnet.Backoff{Min: s.rest}}
		batches, stop := mailnet.Feed(req.IDs)
		defer stop()
		err := checkMailbox(req.Mailbox)
		if err == nil {
			err = f.run(ctx, batches)
		}
		if err != nil && !f.ended {
			yield(source.Fetched{}, err)
		}
	}
}

func (f *fetcher) run(ctx context.Context, batches <-chan []message.ID) error {
	release := func() {}
	defer func() {
		release()
		if f.sess == nil {
			return
		}
		if len(f.flight) > 0 {
			_ = f.sess.Close() // answers are under way that nobody will read
		}
		f.pool.Put(f.sess)
	}()
	for !f.ended {
		if err := f.pull(ctx, batches); err != nil {
			return err
		}
		if len(f.queue)+len(f.flight) == 0 {
			if len(f.doubtful) > 0 {
				continue
			}
			f.release()
			if f.closed {
				return nil
			}
			continue
		}
		err := f.ready(ctx, &release)
		if err == nil {
			err = f.ask(ctx)
		}
		if err == nil && f.more(batches) {
			continue
		}
		if err == nil && len(f.flight) > 0 {
			err = f.answer(ctx)
		}
		if err == nil || f.ended {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if f.sess == nil || !f.sess.Broken() {
			return err
		}
		release()
		if err := f.lose(ctx, err); err != nil {
			return err
		}
		release = f.sess.Net().CloseOn(ctx)
	}
	return nil
}

// pull takes the next batch when there is room: waiting for it only when
// nothing else is to be done, and all that was pulled is answered.
func (f *fetcher) pull(ctx context.Context, batches <-chan []message.ID) error {
	busy := len(f.queue) + len(f.flight)
	if busy > 0 && (f.closed || busy > ahead/2 || f.last || f.careful) {
		return nil
	}
	if busy == 0 {
		f.last, f.careful = false, false
	}
	switch {
	case f.closed:
	case busy+len(f.doubtful)+len(f.held) > 0:
		select {
		case batch, ok := <-batches:
			f.queue, f.closed = append(f.queue, batch...), !ok
			return nil
		default:
		}
	default:
		select {
		case batch, ok := <-batches:
			f.queue, f.closed = append(f.queue, batch...), !ok
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if busy == 0 && len(f.doubtful) > 0 {
		// On a session that begins now, and so knows what is there.
		f.queue, f.doubtful, f.last = append(f.queue, f.doubtful...), nil, true
		f.missed()
	}
	return nil
}

// more takes a batch that comes before the server's next answer: who waits for
// the server without asking for more loses a round trip. It reports whether
// something is to be asked for.
func (f *fetcher) more(batches <-chan []message.ID) bool {
	if len(f.flight) == 0 || len(f.flight) > ahead/2 || len(f.queue) > 0 || f.closed || f.last || f.careful {
		return false
	}
	ready := f.sess.Ready()
	if ready == nil {
		return false
	}
	select {
	case batch, ok := <-batches:
		f.queue, f.closed = append(f.queue, batch...), !ok
		return ok
	case <-ready:
		return false
	}
}

// ready sees to it that there is a session, a fresh one where that is needed.
func (f *fetcher) ready(ctx context.Context, release *func()) (err error) {
	old := func() bool { return f.last && f.sess.opened.UnixNano() <= f.doubt.Load() }
	if f.sess != nil && len(f.flight) == 0 && (old() || f.sess.Broken()) {
		(*release)()
		_ = f.sess.Close()
		f.pool.Put(f.sess)
		f.sess = nil
	}
	if f.sess != nil {
		return nil
	}
	if f.sess, err = f.reach(ctx); err != nil {
		f.sess = nil
		return err
	}
	*release = f.sess.Net().CloseOn(ctx)
	if old() {
		return f.ready(ctx, release)
	}
	return nil
}

// ask sends what the window has room for. An id without a number in this
// session is looked for in a fresh one.
func (f *fetcher) ask(ctx context.Context) error {
	most := window(f.sess.Conn, ahead)
	if f.careful || f.last {
		most = 1
	}
	if len(f.flight) > most/2 {
		return nil
	}
	for len(f.queue) > 0 && len(f.flight) < most {
		id := f.queue[0]
		if id.HeaderHash != "" && !f.sess.drop.identified {
			if len(f.flight) > 0 {
				return nil // the answers under way come first
			}
			if err := f.identify(ctx, f.sess, false); err != nil {
				return err
			}
		}
		f.queue = f.queue[1:]
		at := f.sess.drop.find(id)
		if at < 0 {
			if f.last {
				f.refuse(id, fault.New(fault.Gone, "fetch %s: the server has it no more", id))
				continue
			}
			f.doubtful = append(f.doubtful, id)
			continue
		}
		if err := f.settings.Pace.Messages(ctx, 1); err != nil {
			return err
		}
		// Noted first: when the sending fails it is asked for again.
		f.flight = append(f.flight, asked{id, at})
		f.sess.fetched = true
		f.take(f.sess, id)
		if err := f.sess.Send("RETR " + strconv.Itoa(int(f.sess.drop.nums[at]))); err != nil {
			return err
		}
	}
	return nil
}

// answer reads the answer to the oldest RETR and answers its id.
func (f *fetcher) answer(ctx context.Context) error {
	now := f.flight[0]
	_, err := f.sess.Answer()
	if isRefused(err) {
		f.flight = f.flight[1:]
		return f.refused(ctx, now, err)
	}
	if err != nil {
		return err
	}
	size := f.sess.drop.sizes[now.at]
	body := f.sess.Body(bodyLimit(size), size)
	buf, whole, err := body.AppendTo(f.buf[:0], inMemory)
	f.buf = buf
	if err != nil {
		return err
	}
	header := head(buf)
	if !whole && now.id.HeaderHash != "" && endOfHead(buf) == 0 {
		// The proof is in a header of more than 1 MiB.
		if f.buf, whole, err = readHead(body, buf); err != nil {
			return err
		}
		buf, header = f.buf, head(f.buf)
	}
	if !verified(f.sess.drop, now.at, now.id, header) {
		if err := body.Skip(); err != nil {
			return err
		}
		f.flight = f.flight[1:]
		return f.mistaken(ctx, now)
	}
	if len(buf) == 0 && size != 0 {
		// Is it empty, or is it not sent? It is asked for again, alone.
		f.flight = f.flight[1:]
		return f.refused(ctx, now, errNoData)
	}
	f.flight = f.flight[1:]
	f.msg = message.Message{Summary: message.Summary{ID: now.id}}
	if f.req.Needs.Has(message.NeedSize) && size >= 0 {
		f.msg.Size, f.msg.Have = size, message.NeedSize
	}
	if f.req.Needs.Has(message.NeedHeaders) {
		if !whole {
			if f.buf, whole, err = readHead(body, buf); err != nil {
				return f.gotNothing(now, err)
			}
			buf, header = f.buf, head(f.buf)
		}
		f.msg.Header = message.NewHeader(header)
		f.msg.Have |= message.NeedHeaders
	}
	if whole {
		f.msg.Body = message.BodyOf(buf)
	} else {
		f.msg.Body = message.NewBody(io.MultiReader(bytes.NewReader(buf), body), -1, f.spool)
	}
	f.slow.Reset()
	f.careful = false
	delete(f.deaths, now.id)
	delete(f.retries, now.id)
	f.release()
	if !f.ended && !f.yield(source.Fetched{ID: now.id, Message: &f.msg}, nil) {
		f.ended = true
	}
	f.msg.Body.Release()
	if cap(f.buf) > 2*inMemory {
		f.buf = nil
	}
	return nil
}

// gotNothing puts a message back that broke off before anybody saw it.
func (f *fetcher) gotNothing(now asked, err error) error {
	f.flight = append([]asked{now}, f.flight...)
	return err
}

// bodyLimit is how long a message may become that was listed with a size.
// Servers count line ends as they like, and some guess; none is wrong by
// this much.
func bodyLimit(size int64) int64 {
	if size < 0 {
		return popconn.MaxBody
	}
	return min(4*size+64<<20, popconn.MaxBody)
}
