package imapsource

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

const (
	// inMemory is the largest body that is read whole before it is handed
	// over. Only such a body can be fetched again unseen when it breaks off.
	inMemory = 1 << 20
	// headLimit bounds the header that is taken off a larger body.
	headLimit = 8 << 20
	// ahead is how many messages are asked for before the ones before have
	// come: enough to hide a round trip, few enough to share the work.
	ahead = 256
	// maxFlight is how many commands are under way at once.
	maxFlight = 16
	// maxDeaths is how often the connection may end on a message that was
	// asked for alone. Networks cut at random, too.
	maxDeaths = 3
	// maxExpired is how many sessions in a row may run out without a message.
	maxExpired = 3
	// maxHeld is how many messages in a row may end the connection before it
	// is the server, not the messages, that is taken to be at fault.
	maxHeld = 8
)

// fetcher runs one Fetch on one connection.
type fetcher struct {
	*Source
	req    source.FetchRequest
	conn   *imapconn.Conn
	items  string // with BODY.PEEK[]
	needs  message.Needs
	yield  func(source.Fetched, error) bool
	ended  bool // the consumer broke off
	closed bool // no more batches

	pending  map[uint32]message.ID // pulled, not answered
	flight   []*command            // sent, not completed, in order
	queue    imapdata.Set          // to be asked for, at the pace
	work     []imapdata.Set        // to be asked for again, alone; the last first
	deaths   map[uint32]int        // how often a connection died on a message alone
	empty    map[uint32]int        // how often a message alone came without a body
	made     map[uint32][]byte     // the placeholder that the server sent for it
	validity uint32
	lost     error            // why the connection broke
	expired  int              // sessions that ran out since the last message
	slow     mailnet.Backoff  // of a server that throttles, since the last message
	held     []source.Fetched // messages on which the connection died, until the server shows that it is well

	buf  []byte // a body in memory
	msg  message.Message
	it   imapdata.Items
	head []byte
}

// command is one UID FETCH under way.
type command struct {
	tag      string
	set      imapdata.Set
	answered int
	alone    bool // from work: nothing else is under way
}

// Fetch fetches bodies by ranges of UIDs, several commands under way at once.
func (s *Source) Fetch(ctx context.Context, req source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(yield func(source.Fetched, error) bool) {
		f := &fetcher{Source: s, req: req, yield: yield, needs: req.Needs &^ message.NeedBody,
			pending: map[uint32]message.ID{}, deaths: map[uint32]int{}, empty: map[uint32]int{}, made: map[uint32][]byte{}, slow: mailnet.Backoff{Min: s.rest}}
		f.items = fetchItems(s, req.Mailbox, f.needs&^message.NeedHeaders, "BODY.PEEK[]")
		batches, stop := mailnet.Feed(req.IDs)
		defer stop()
		if err := f.run(ctx, batches); err != nil && !f.ended {
			yield(source.Fetched{}, err)
		}
	}
}

func (f *fetcher) run(ctx context.Context, batches <-chan []message.ID) (err error) {
	release := func() {}
	defer func() {
		release()
		if f.conn == nil {
			return
		}
		if len(f.flight) > 0 {
			f.conn.Close() // answers are under way that nobody will read
		}
		f.pool.Put(f.conn)
	}()
	for !f.ended {
		if f.conn != nil && f.conn.Broken() {
			release()
			if len(f.pending) == 0 {
				f.pool.Put(f.conn)
				f.conn, f.flight, f.work, f.queue = nil, nil, nil, nil
				continue
			}
			if len(f.flight) > 0 {
				f.lose(f.conn.Err()) // it ended in the hands of a body's reader
			}
			if err := f.recover(ctx); err != nil {
				return err
			}
			release = f.conn.Net().CloseOn(ctx)
			continue
		}
		if f.conn != nil && len(f.flight) == 0 {
			if err := f.conn.Adapt(ctx); err != nil {
				continue // it is broken
			}
		}
		batch, more, err := f.pull(ctx, batches)
		if err != nil {
			return err
		}
		if !more && len(f.flight) == 0 && len(f.work) == 0 && len(f.queue) == 0 {
			f.release()
			return nil
		}
		if f.conn == nil && (len(batch) > 0 || len(f.work) > 0) {
			if f.conn, err = f.pool.Reach(ctx, opened(f.req.Mailbox)); err != nil {
				return err
			}
			release = f.conn.Net().CloseOn(ctx)
			if err := f.open(ctx); err != nil {
				if f.conn.Broken() {
					f.accept(batch)
					f.lose(err)
					continue
				}
				return err
			}
		}
		if len(batch) > 0 {
			f.queue = f.accept(batch)
		}
		// With a pace a batch is asked for a second's worth at a time, and
		// what was asked for is read before the next.
		n := f.settings.Pace.Step(int(f.queue.Count()))
		if n > 0 && (len(batch) == n || len(f.flight) == 0) {
			if err := f.settings.Pace.Messages(ctx, n); err != nil {
				return err
			}
			f.send(f.queue.TakeFirst(int64(n)), false)
			continue // more may go along with it
		}
		if len(f.flight) == 0 && len(f.work) > 0 {
			f.send(f.nextWork(), true)
		}
		if len(f.flight) == 0 {
			continue
		}
		if err := f.answer(ctx); err != nil {
			if f.ended || ctx.Err() != nil {
				return err
			}
			if !f.conn.Broken() {
				return err
			}
			f.lose(err)
			if len(f.held) > maxHeld {
				return fault.Wrap(fault.Unavailable, err, "fetch messages of %s: the connection ended on each of %d messages in a row", f.req.Mailbox, len(f.held))
			}
		}
	}
	return nil
}

// pull takes the next batch when there is room: waiting for it only as long as
// nothing else is to be done.
func (f *fetcher) pull(ctx context.Context, batches <-chan []message.ID) (batch []message.ID, more bool, err error) {
	if len(f.flight) > 0 && f.conn.Slow() {
		return nil, !f.closed, nil // first it is made faster
	}
	if f.closed || len(f.work) > 0 || len(f.queue) > 0 || len(f.pending) > ahead && len(f.flight) > 1 || len(f.flight) >= maxFlight {
		return nil, !f.closed, nil
	}
	if len(f.flight) > 0 {
		select {
		case batch, ok := <-batches:
			f.closed = !ok
			return batch, ok, nil
		default:
		}
		// Who waits for the server here without asking for more loses a round
		// trip; the next batch is mostly a moment away.
		ready := f.conn.Ready()
		if ready == nil {
			return nil, true, nil
		}
		select {
		case batch, ok := <-batches:
			f.closed = !ok
			return batch, ok, nil
		case <-ready:
			return nil, true, nil
		}
	}
	select {
	case batch, ok := <-batches:
		f.closed = !ok
		return batch, ok, nil
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

// open makes sure that the mailbox is open and is the one that the ids are of.
func (f *fetcher) open(ctx context.Context) error {
	st, err := f.selected(ctx, f.conn, f.req.Mailbox)
	if err != nil {
		return err
	}
	f.validity = stateOf(st).UIDValidity
	return nil
}

// accept notes a batch as pulled and returns what can be asked for.
func (f *fetcher) accept(batch []message.ID) imapdata.Set {
	uids := make([]uint32, 0, len(batch))
	for _, id := range batch {
		if id.UID == 0 {
			f.refuse(id, fault.New(fault.Message, "fetch %s: it has no UID", id).WithReason("no_uid"))
			continue
		}
		if f.conn != nil && !f.conn.Broken() && id.UIDValidity != f.validity {
			f.refuse(id, fault.New(fault.Gone, "fetch %s: the mailbox's UIDVALIDITY is now %d: the server has numbered its messages anew", id, f.validity))
			continue
		}
		f.pending[id.UID] = id
		uids = append(uids, id.UID)
	}
	return imapdata.Of(uids)
}

// send asks for a set of messages, in as many commands as it takes.
func (f *fetcher) send(set imapdata.Set, alone bool) {
	items := f.items
	if alone && !f.needs.Has(message.NeedSize) {
		items = "(RFC822.SIZE " + items[1:] // tells an empty message from one that isn't sent
	}
	for _, c := range set.Chunks(setLimit) {
		tag, err := f.conn.Send("UID FETCH " + c.Text + " " + items)
		f.flight = append(f.flight, &command{tag: tag, set: c.Set, alone: alone})
		if err != nil {
			return // reading says the same, and is where it is dealt with
		}
	}
}

// answer reads one response.
func (f *fetcher) answer(ctx context.Context) error {
	r, err := f.conn.Next()
	if err != nil {
		return err
	}
	switch {
	case r.Name == "FETCH" && r.Tag == "":
		return f.message(ctx, r)
	case r.Tag != "":
		return f.complete(ctx, r)
	}
	return nil
}

// message answers an id with what a FETCH response brought.
func (f *fetcher) message(ctx context.Context, r *imapconn.Response) error {
	flags := f.it.Flags
	f.it = imapdata.Items{Seq: r.Num, Flags: flags}
	f.it.Read(r.Data)
	body := f.conn.Body()
	switch {
	case !r.Streams && f.it.Section == nil:
		return nil // flags of some message that changed, or no data at all
	case !r.Streams:
		return f.deliver(f.it.Section, nil)
	case body.Size() <= inMemory:
		if err := f.read(body); err != nil {
			return err
		}
		tail, err := f.conn.Tail()
		if err != nil {
			return err
		}
		f.it.Read(tail)
		return f.deliver(f.buf, nil)
	}
	if _, ok := f.pending[f.it.UID]; !ok || !f.it.Have.Has(f.needs&(message.NeedSize|message.NeedInternalDate|message.NeedFlags|message.NeedStructure)) {
		// Items come behind the body: it has to wait for them.
		if f.it.UID != 0 && !ok {
			return nil
		}
		held := message.NewBody(body, body.Size(), f.spool)
		defer held.Release()
		if _, err := held.Whole(ctx); err != nil {
			return err
		}
		tail, err := f.conn.Tail()
		if err != nil {
			return err
		}
		f.it.Read(tail)
		return f.deliver(nil, held)
	}
	return f.deliver(nil, message.NewBody(body, body.Size(), f.spool))
}

// read takes a body into memory. It is whole only when the octets behind it
// show that its length was right.
func (f *fetcher) read(body *imapconn.Body) error {
	n := int(body.Size())
	if cap(f.buf) < n {
		f.buf = make([]byte, n, min(max(2*n, 64<<10), inMemory))
	}
	f.buf = f.buf[:n]
	if _, err := io.ReadFull(body, f.buf); err != nil {
		return err
	}
	var more [1]byte
	if _, err := body.Read(more[:]); err != io.EOF {
		return err
	}
	return nil
}

// deliver answers the id of the message read last with a body: octets in
// memory, or a reader. A response without a UID can only be the one that was
// asked for alone.
func (f *fetcher) deliver(octets []byte, body *message.Body) error {
	uid := f.it.UID
	if uid == 0 && len(f.flight) == 1 && f.flight[0].set.Count() == 1 {
		uid = f.flight[0].set[0].First
	}
	id, ok := f.pending[uid]
	if !ok {
		return nil
	}
	if len(octets) == 0 && body == nil && (f.it.Size > 0 || !f.it.Have.Has(message.NeedSize)) {
		return nil // is it empty, or is it not sent? It is asked for again, alone.
	}
	if body == nil && placeholder(octets) {
		f.made[uid] = bytes.Clone(octets)
		return nil // as if it had not come: alone it may
	}
	f.msg = message.Message{Summary: message.Summary{ID: id}}
	fill(&f.msg.Summary, &f.it, f.needs)
	f.place(&f.msg.Summary, &f.it)
	if body == nil {
		body = message.BodyOf(octets)
		if f.needs.Has(message.NeedHeaders) {
			f.msg.Header = message.NewHeader(header(octets))
			f.msg.Have |= message.NeedHeaders
		}
	} else {
		// Until here nothing was handed out: what breaks off now is fetched
		// again unseen.
		var err error
		if body, err = f.begin(body); err != nil {
			return err
		}
	}
	f.msg.Body = body
	f.slow.Reset()
	f.expired = 0
	delete(f.pending, uid)
	for _, c := range f.flight {
		if c.set.Has(uid) {
			c.answered++
			break
		}
	}
	if !f.yield(source.Fetched{ID: id, Message: &f.msg}, nil) {
		f.ended = true
	}
	body.Release()
	f.release()
	return nil
}

// begin reads the beginning of a large body, with the header where that is
// asked for, and puts it back in front.
func (f *fetcher) begin(body *message.Body) (*message.Body, error) {
	f.head = f.head[:0]
	for len(f.head) == 0 || f.needs.Has(message.NeedHeaders) && len(f.head) < headLimit && header(f.head) == nil {
		at := len(f.head)
		f.head = append(f.head, make([]byte, 16<<10)...)
		n, err := body.Read(f.head[at:])
		f.head = f.head[:at+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if f.needs.Has(message.NeedHeaders) {
		raw := header(f.head)
		if raw == nil {
			raw = f.head
		}
		f.msg.Header = message.NewHeader(raw)
		f.msg.Have |= message.NeedHeaders
	}
	return message.NewBody(io.MultiReader(bytes.NewReader(f.head), body), body.Size(), f.spool), nil
}

// header returns the octets up to and with the empty line; nil when there is
// none.
func header(b []byte) []byte {
	for at := 0; at < len(b); {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return nil
		}
		at += i + 1
		if at < len(b) && b[at] == '\n' {
			return b[:at+1]
		}
		if at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n' {
			return b[:at+2]
		}
	}
	return nil
}

// refuse answers an id with an error, and with what the server made up.
func (f *fetcher) refuse(id message.ID, err error) {
	delete(f.pending, id.UID)
	if !f.ended && !f.yield(source.Fetched{ID: id, Err: err, Instead: f.made[id.UID]}, nil) {
		f.ended = true
	}
}

var errNoData = errors.New("the server lists it and sends no octets")
