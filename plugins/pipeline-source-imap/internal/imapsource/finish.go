package imapsource

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// moved marks a message that was copied where it is to go and isn't removed
// yet, on servers without MOVE: when it is asked for again after a cut it
// isn't copied again.
const moved = "$MailhaulMoved"

// finisher runs one Finish: the only place that opens a mailbox to change it
// (I7).
type finisher struct {
	*Source
	req   source.FinishRequest
	conn  *imapconn.Conn
	state *imapconn.Opened
	left  map[uint32]message.ID // not answered
	yield func(source.Finished, error) bool
	ended bool
}

// Finish does with exported messages what the file says. A message that is
// gone by now, or was renumbered, is answered so; all else may be asked for
// again without harm.
func (s *Source) Finish(ctx context.Context, req source.FinishRequest) iter.Seq2[source.Finished, error] {
	return func(yield func(source.Finished, error) bool) {
		f := &finisher{Source: s, req: req, left: map[uint32]message.ID{}, yield: yield}
		if req.Action.IsZero() {
			for _, id := range req.IDs {
				if !yield(source.Finished{ID: id}, nil) {
					return
				}
			}
			return
		}
		if err := f.run(ctx); err != nil && !f.ended {
			yield(source.Finished{}, err)
		}
	}
}

func (f *finisher) run(ctx context.Context) (err error) {
	if flag := f.req.Action.Flag; flag != "" && !storable(flag) {
		return fault.New(fault.Config, "%q is no flag that can be set", flag).WithHint(`write it as \Seen or $Exported`)
	}
	if f.conn, err = f.pool.Reach(ctx, nil); err != nil {
		return err
	}
	defer func() {
		var none *imapconn.Conn
		if f.conn != none {
			f.conn.Select(nil)
			f.pool.Put(f.conn)
		}
	}()
	for _, id := range f.req.IDs {
		f.left[id.UID] = id
	}
	slow := mailnet.Backoff{Min: f.rest}
	for try := 0; ; try++ {
		before := len(f.left)
		err := f.try(ctx)
		if len(f.left) < before {
			try = 0
			slow.Reset()
		}
		switch {
		case err == nil || f.ended || ctx.Err() != nil:
			return err
		case !f.conn.Broken() && !fault.Is(err, fault.Throttled), try == mailnet.MaxReconnects:
			return err
		}
		if f.conn, err = f.pool.Again(ctx, f.conn, err, &slow); err != nil {
			return err
		}
	}
}

// try does what is left on the connection that there is.
func (f *finisher) try(ctx context.Context) error {
	raw, err := f.raw(ctx, f.conn, f.req.Mailbox)
	if err != nil {
		return err
	}
	if f.state, err = f.examineOnce(ctx, f.conn, "SELECT", f.req.Mailbox, raw); err != nil {
		return err
	}
	if f.state.ReadOnly {
		return fault.New(fault.Message, "change messages of %s: the server opens it for reading only", f.req.Mailbox).
			WithHint("the user has no right to change this mailbox; leave out after: for it")
	}
	validity := stateOf(f.state).UIDValidity
	var uids []uint32
	for uid, id := range f.left {
		if id.UIDValidity != validity {
			f.answer(uid, fault.New(fault.Unavailable, "finish %s: the mailbox's UIDVALIDITY is now %d: the server has numbered its messages anew", id, validity))
			continue
		}
		uids = append(uids, uid)
	}
	for _, c := range imapdata.Of(uids).Chunks(setLimit) {
		there, _, err := searchUIDs(ctx, f.conn, "UID "+c.Text)
		if err != nil {
			return err
		}
		for _, r := range c.Set.Minus(there) {
			(imapdata.Set{r}).All(func(uid uint32) bool {
				f.answer(uid, fault.New(fault.Gone, "finish %s: the server has it no more", f.left[uid]))
				return true
			})
		}
		if err := f.all(ctx, c.Set.And(there)); err != nil {
			return err
		}
		if f.ended {
			return nil
		}
	}
	return nil
}

// all does it to a set, and by halves where the server refuses the whole.
func (f *finisher) all(ctx context.Context, set imapdata.Set) error {
	if len(set) == 0 || f.ended {
		return nil
	}
	err := f.do(ctx, set)
	switch {
	case err == nil:
		set.All(func(uid uint32) bool { f.answer(uid, nil); return true })
		return nil
	case f.conn.Broken(), ctx.Err() != nil, !fault.Is(err, fault.Message):
		return err
	}
	n := set.Count()
	if n == 1 {
		f.answer(set[0].First, err)
		return nil
	}
	lo := set.First(n / 2)
	if err := f.all(ctx, lo); err != nil {
		return err
	}
	return f.all(ctx, set.Above(lo[len(lo)-1].Last))
}

func (f *finisher) answer(uid uint32, err error) {
	id, ok := f.left[uid]
	if !ok || f.ended {
		return
	}
	delete(f.left, uid)
	f.ended = !f.yield(source.Finished{ID: id, Err: err}, nil)
}

func (f *finisher) do(ctx context.Context, set imapdata.Set) error {
	switch a := f.req.Action; {
	case a.Flag != "":
		return f.flag(ctx, set, a.Flag)
	case a.Move != "":
		return f.move(ctx, set, a.Move)
	case f.gmail:
		return f.trash(ctx, set)
	default:
		return f.delete(ctx, set)
	}
}

func (f *finisher) command(ctx context.Context, command string) error {
	_, err := f.conn.Do(ctx, command, nil)
	return err
}

func (f *finisher) flag(ctx context.Context, set imapdata.Set, flag string) error {
	if !f.keeps(flag) {
		return fault.New(fault.Message, "set %s in %s: the server keeps no such flag (it keeps %s)", flag, f.req.Mailbox, f.state.Keeps)
	}
	return f.command(ctx, "UID STORE "+set.String()+" +FLAGS.SILENT ("+flag+")")
}

// keeps reports whether the server says that it keeps a flag for good; one
// that says nothing keeps all (RFC 9051 §7.1 PERMANENTFLAGS).
func (f *finisher) keeps(flag string) bool {
	if f.state.Keeps == "" {
		return true
	}
	kept := strings.Fields(strings.Trim(f.state.Keeps, "()"))
	return slices.Contains(kept, strings.ToLower(flag)) || !strings.HasPrefix(flag, `\`) && slices.Contains(kept, `\*`)
}

// move uses MOVE (RFC 6851), else COPY, \Deleted and EXPUNGE of these alone.
// The mailbox is made when it isn't there.
func (f *finisher) move(ctx context.Context, set imapdata.Set, to string) error {
	if to == f.req.Mailbox {
		return nil
	}
	raw, err := f.raw(ctx, f.conn, to)
	if err != nil {
		return err
	}
	move := f.moveTo
	if !f.conn.Has("MOVE") {
		move = f.copyTo
	}
	if err = move(ctx, set, raw); err == nil || f.conn.Broken() || !fault.Is(err, fault.Message) {
		return err
	}
	// Is it because the mailbox isn't there? CREATE is refused when it is.
	if made := f.command(ctx, "CREATE "+f.conn.String(raw)); made != nil {
		if f.conn.Broken() {
			return made
		}
		return err
	}
	return move(ctx, set, raw)
}

func (f *finisher) moveTo(ctx context.Context, set imapdata.Set, raw string) error {
	return f.command(ctx, "UID MOVE "+set.String()+" "+f.conn.String(raw))
}

func (f *finisher) copyTo(ctx context.Context, set imapdata.Set, raw string) error {
	marks, todo := `\Deleted`, set
	if f.keeps(moved) {
		marks += " " + moved
		done, _, err := searchUIDs(ctx, f.conn, "UID "+set.String()+" KEYWORD "+moved)
		if err != nil && f.conn.Broken() {
			return err
		}
		if err == nil {
			todo = set.Minus(done)
		}
	}
	if len(todo) > 0 {
		if err := f.command(ctx, "UID COPY "+todo.String()+" "+f.conn.String(raw)); err != nil {
			return err
		}
		if err := f.command(ctx, "UID STORE "+todo.String()+" +FLAGS.SILENT ("+marks+")"); err != nil {
			return err
		}
	}
	return f.expunge(ctx, set)
}

func (f *finisher) delete(ctx context.Context, set imapdata.Set) error {
	if err := f.command(ctx, "UID STORE "+set.String()+` +FLAGS.SILENT (\Deleted)`); err != nil {
		return err
	}
	return f.expunge(ctx, set)
}

// expunge removes these messages and no others (RFC 4315 §2.1). EXPUNGE alone
// would remove what somebody else flagged, so that a server without UIDPLUS
// keeps them, flagged.
func (f *finisher) expunge(ctx context.Context, set imapdata.Set) error {
	if f.conn.Has("UIDPLUS") || f.conn.Has("IMAP4REV2") {
		return f.command(ctx, "UID EXPUNGE "+set.String())
	}
	f.sayOnce("the server has no UIDPLUS: exported messages are flagged \\Deleted, and stay until somebody expunges the mailbox", "mailbox", f.req.Mailbox)
	return nil
}

// trash deletes as Gmail does: what is expunged elsewhere only loses a label.
func (f *finisher) trash(ctx context.Context, set imapdata.Set) error {
	trash := f.special("trash")
	switch f.req.Mailbox {
	case trash, f.special("junk"):
		return f.delete(ctx, set)
	}
	if trash == "" {
		return fault.New(fault.Message, "delete messages of %s: Gmail deletes what is in the Trash, and that is hidden from IMAP", f.req.Mailbox).
			WithHint("show the Trash in Gmail's settings under Labels")
	}
	f.sayOnce("Gmail keeps what is deleted in its Trash for 30 days", "mailbox", trash)
	return f.move(ctx, set, trash)
}

// sayOnce warns of a thing once in a session.
func (s *Source) sayOnce(text string, args ...any) {
	s.mu.Lock()
	known := s.said[text]
	if s.said == nil {
		s.said = map[string]bool{}
	}
	s.said[text] = true
	s.mu.Unlock()
	if !known {
		s.log.Warn(text, args...)
	}
}

// special returns the name of the mailbox with a special use; empty when
// there is none.
func (s *Source) special(use string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uses[use]
}

// storable reports whether a flag can be set: a system flag but \Recent, or a
// keyword.
func storable(flag string) bool {
	word := strings.TrimPrefix(flag, `\`)
	if word == "" || strings.IndexFunc(word, notInKeyword) >= 0 {
		return false
	}
	_, system := flagKeys[strings.ToLower(flag)]
	return system || word == flag
}
