package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing/iotest"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// server is what a synthetic source reads: deterministic messages in
// mailboxes, and switches for what can go wrong. Tests count what was asked.
type server struct {
	mu        sync.Mutex
	mailboxes []string
	count     map[string]int             // UIDs 1..count are there …
	expunged  map[string]map[uint32]bool // … but for these
	octets    func(mailbox string, uid uint32) []byte
	lanes     int

	gone     map[uint32]bool                            // listed, but Fetch says Gone
	expunge  map[string]uint32                          // these go when one that is gone is fetched
	refuse   map[uint32]bool                            // Fetch says Message
	cut      map[uint32]int                             // how often the body still breaks off
	killer   map[uint32]bool                            // the process dies when it is fetched
	midway   map[uint32]bool                            // … and this one when half of its body has come
	silent   map[uint32]func(context.Context) io.Reader // what comes instead of the second half of its body
	hides    message.Needs                              // what its listings don't tell
	lacks    message.Needs                              // what it could tell, and has of no message
	hidden   map[string]int64                           // messages that it counts and doesn't list
	blind    []string                                   // what it says that it hides
	dieAfter int64                                      // the process dies once after so many bodies; 0: never
	openErr  error
	opening  func(n int64) error // asked at the nth opening, from 1
	budget   source.Budget
	onFetch  func(n int64)                         // called with mu held before the nth body
	onList   func(n int64) error                   // what the nth listing ends with in its middle, from 1; nil: well
	validity uint32                                // 0 means 7
	shift    uint32                                // added to all UIDs
	uidls    string                                // messages go by string ids that begin so
	lies     int64                                 // added to sizes in listings
	searches bool                                  // it leaves out the summaries of what fails a condition on the size
	finishes bool                                  // it asks to be told of every commit
	onFinish func(message.ID, source.Action) error // nil: it can't change anything
	done     map[string]int                        // by mailbox, UID and action: how often
	cutAfter int                                   // Finish breaks off once after so many
	misleads bool                                  // it says that messages fail a condition that isn't there
	calls    *gauge                                // of List and Fetch at once; may be shared

	opened  atomic.Int64
	lists   atomic.Int64 // listings, of pages or of ids
	listed  atomic.Int64 // summaries
	headers atomic.Int64 // of those, with their headers
	brought atomic.Int64 // octets of bodies
	fetched atomic.Int64 // bodies
	needs   atomic.Uint32
}

func newServer(count int, mailboxes ...string) *server {
	s := &server{mailboxes: mailboxes, count: map[string]int{}, expunged: map[string]map[uint32]bool{}, lanes: 3,
		gone: map[uint32]bool{}, refuse: map[uint32]bool{}, cut: map[uint32]int{}, killer: map[uint32]bool{}, midway: map[uint32]bool{}}
	for _, m := range mailboxes {
		s.count[m] = count
	}
	s.octets = func(mailbox string, uid uint32) []byte {
		return fmt.Appendf(nil, "From: a@example.com\r\nSubject: %s %d\r\nMessage-ID: <%d@%s>\r\n\r\n%s\r\n", mailbox, uid, uid, mailbox,
			strings.Repeat("x", int(uid%50)))
	}
	return s
}

func (s *server) uids(mailbox string) []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []uint32
	for uid := uint32(1); uid <= uint32(s.count[mailbox]); uid++ {
		if !s.expunged[mailbox][uid] {
			out = append(out, uid)
		}
	}
	return out
}

// id is the id of the message that UID stands for at first; 0 is no message.
func (s *server) id(mailbox string, uid uint32) message.ID {
	if s.uidls != "" {
		return message.ID{Mailbox: mailbox, UIDL: fmt.Sprint(s.uidls, uid)}
	}
	return message.ID{Mailbox: mailbox, UIDValidity: max(s.validity, 7), UID: uid + s.shift}
}

// uidOf is the reverse; 0 for an id that isn't there any more.
func (s *server) uidOf(id message.ID) uint32 {
	switch {
	case s.uidls == "" && id.UIDValidity == max(s.validity, 7):
		return id.UID - s.shift
	case s.uidls != "" && strings.HasPrefix(id.UIDL, s.uidls):
		n, _ := strconv.ParseUint(id.UIDL[len(s.uidls):], 10, 32)
		return uint32(n)
	}
	return 0
}

func (s *server) state(mailbox string) message.MailboxState {
	n := len(s.uids(mailbox))
	return message.MailboxState{Messages: int64(n) + s.hidden[mailbox], BlindSpots: s.blind, Bytes: -1, UIDValidity: s.id(mailbox, 0).UIDValidity, Content: fmt.Sprintf("%d%s/%d/%d", s.id(mailbox, 0).UIDValidity, s.uidls, s.count[mailbox], n), Flags: "1"}
}

const serverProvides = message.NeedSize | message.NeedInternalDate | message.NeedFlags | message.NeedHeaders | message.NeedStructure

var errAuth = fault.New(fault.Auth, "the server refuses the password")

var errDied = fault.New(fault.Crashed, "the plugin's process was killed")

// session is one connection to a server; it dies as a process does.
type session struct {
	*server
	dead atomic.Bool
}

func (s *server) open() (source.Opened, error) {
	n := s.opened.Add(1)
	if s.openErr != nil {
		return source.Opened{}, s.openErr
	}
	if s.opening != nil {
		if err := s.opening(n); err != nil {
			return source.Opened{}, err
		}
	}
	opened := &session{server: s}
	var src source.Source = opened
	if s.onFinish != nil {
		src = finisherSession{opened}
	}
	return source.Opened{Source: src, Budget: s.budget, Finishes: s.finishes, Lanes: s.lanes, Provides: serverProvides, URL: "test://u@h"}, nil
}

func (s *session) Mailboxes(context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		for _, m := range s.mailboxes {
			if !yield(message.Mailbox{Name: m, Selectable: true, State: s.state(m)}, nil) {
				return
			}
		}
	}
}

func (s *session) List(_ context.Context, req source.ListRequest) iter.Seq2[message.Summary, error] {
	return func(yield func(message.Summary, error) bool) {
		defer s.calls.in()()
		if s.dead.Load() {
			yield(message.Summary{}, errDied)
			return
		}
		if req.State != nil {
			req.State(s.state(req.Mailbox))
		}
		s.needs.Or(uint32(req.Needs))
		lists := s.lists.Add(1)
		uids := s.uids(req.Mailbox)
		if req.Newest {
			slices.Reverse(uids)
		}
		n := 0
		for _, uid := range uids {
			if req.After != nil && (!req.Newest && uid <= s.uidOf(*req.After) || req.Newest && uid >= s.uidOf(*req.After)) {
				continue
			}
			if req.IDs != nil && !slices.ContainsFunc(req.IDs, func(id message.ID) bool { return s.uidOf(id) == uid }) {
				continue
			}
			if req.Limit > 0 && n == req.Limit {
				return
			}
			if n++; s.onList != nil && n == 10 {
				if err := s.onList(lists); err != nil {
					yield(message.Summary{}, err)
					return
				}
			}
			if fails := s.search(req, uid); fails > 0 {
				if !yield(message.Summary{ID: s.id(req.Mailbox, uid), Fails: fails}, nil) {
					return
				}
				continue
			}
			s.listed.Add(1)
			if req.Needs.Has(message.NeedHeaders) {
				s.headers.Add(1)
			}
			if !yield(s.summary(req.Mailbox, uid, req.Needs), nil) {
				return
			}
		}
	}
}

// search returns 1 + the index of a condition that the message fails.
func (s *session) search(req source.ListRequest, uid uint32) int {
	if s.misleads {
		return len(req.Where) + 1
	}
	if !s.searches {
		return 0
	}
	size := int64(len(s.octets(req.Mailbox, uid)))
	for i, c := range req.Where {
		if c.Field == "size" && (c.Op == ">" && size <= c.Size || c.Op == "<" && size >= c.Size) {
			return i + 1
		}
	}
	return 0
}

func (s *session) summary(mailbox string, uid uint32, needs message.Needs) message.Summary {
	octets := s.octets(mailbox, uid)
	needs &^= s.lacks
	sum := message.Summary{ID: s.id(mailbox, uid), Have: needs & serverProvides}
	if needs.Has(message.NeedSize) {
		sum.Size = int64(len(octets)) + s.lies
	}
	if needs.Has(message.NeedInternalDate) {
		sum.InternalDate = time.Unix(int64(uid), 0).UTC()
	}
	if needs.Has(message.NeedHeaders) {
		head, _, _ := bytes.Cut(octets, []byte("\r\n\r\n"))
		sum.Header = message.NewHeader(octets[:min(len(head)+4, len(octets))])
	}
	if needs.Has(message.NeedStructure) {
		sum.Structure = &message.Part{Path: "1", MediaType: "text/plain"}
	}
	return sum
}

func (s *session) Fetch(ctx context.Context, req source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(yield func(source.Fetched, error) bool) {
		defer s.calls.in()()
		for ids := range req.IDs {
			for _, id := range ids {
				f, err := s.fetch(id, req.Needs)
				if err != nil {
					yield(source.Fetched{}, err)
					return
				}
				if silent := s.silent[s.uidOf(id)]; silent != nil {
					octets := s.octets(id.Mailbox, s.uidOf(id))
					f.Message.Body = message.NewBody(io.MultiReader(bytes.NewReader(octets[:len(octets)/2]), silent(ctx)), int64(len(octets)), nil)
				}
				if !yield(f, nil) {
					return
				}
				if ctx.Err() != nil {
					yield(source.Fetched{}, context.Cause(ctx))
					return
				}
			}
		}
	}
}

func (s *session) fetch(id message.ID, needs message.Needs) (source.Fetched, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.fetched.Load()
	if s.onFetch != nil {
		s.onFetch(n + 1)
	}
	uid := s.uidOf(id)
	if s.killer[uid] || s.dieAfter > 0 && n >= s.dieAfter || s.dead.Load() {
		if !s.killer[uid] {
			s.dieAfter = 0
		}
		s.dead.Store(true)
		return source.Fetched{}, errDied
	}
	f := source.Fetched{ID: id}
	switch {
	case s.gone[uid], uid == 0:
		if other, ok := s.expunge[id.Mailbox]; ok {
			if s.expunged[id.Mailbox] == nil {
				s.expunged[id.Mailbox] = map[uint32]bool{}
			}
			s.expunged[id.Mailbox][other] = true
		}
		f.Err = fault.New(fault.Gone, "no such message")
		return f, nil
	case s.refuse[uid]:
		f.Err = fault.New(fault.Message, "the server can't").WithReason("server_error")
		f.Instead = fmt.Appendf(nil, "instead of %d", id.UID)
		return f, nil
	}
	octets := s.octets(id.Mailbox, uid)
	sum := message.Summary{ID: id, Have: needs &^ message.NeedBody & serverProvides, Size: int64(len(octets)), InternalDate: time.Unix(int64(uid), 0).UTC()}
	f.Message = &message.Message{Summary: sum, Body: message.BodyOf(octets)}
	if s.cut[uid] > 0 {
		s.cut[uid]--
		f.Message.Body = message.NewBody(iotest.TimeoutReader(strings.NewReader(string(octets))), int64(len(octets)), nil)
	}
	if s.midway[uid] {
		s.dead.Store(true)
		f.Message.Body = message.NewBody(io.MultiReader(strings.NewReader(string(octets[:len(octets)/2])), iotest.ErrReader(errDied)), int64(len(octets)), nil)
	}
	s.fetched.Add(1)
	s.brought.Add(int64(len(octets)))
	return f, nil
}

func (s *session) Close() error { return nil }

// gauge counts calls at once. A nil gauge doesn't.
type gauge struct{ now, peak atomic.Int64 }

func (g *gauge) in() (out func()) {
	if g == nil {
		return func() {}
	}
	for n := g.now.Add(1); ; {
		was := g.peak.Load()
		if n <= was || g.peak.CompareAndSwap(was, n) {
			break
		}
	}
	return func() { g.now.Add(-1) }
}

// finisherSession is a session that can change the server.
type finisherSession struct{ *session }

func (s finisherSession) Finish(_ context.Context, req source.FinishRequest) iter.Seq2[source.Finished, error] {
	return func(yield func(source.Finished, error) bool) {
		for _, id := range req.IDs {
			if s.cutAfter > 0 {
				if s.cutAfter--; s.cutAfter == 0 {
					yield(source.Finished{}, fault.New(fault.Unavailable, "connection reset"))
					return
				}
			}
			f := source.Finished{ID: id, Err: s.onFinish(id, req.Action)}
			if f.Err == nil {
				s.mu.Lock()
				if s.done == nil {
					s.done = map[string]int{}
				}
				s.done[fmt.Sprint(req.Mailbox, " ", id.UID, " ", req.Action.Flag, req.Action.Move, req.Action.Delete)]++
				if req.Action.Move != "" || req.Action.Delete {
					if s.expunged[req.Mailbox] == nil {
						s.expunged[req.Mailbox] = map[uint32]bool{}
					}
					s.expunged[req.Mailbox][id.UID] = true
				}
				s.mu.Unlock()
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}
