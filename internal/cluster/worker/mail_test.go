package worker_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// mail is a made-up server with mailboxes of messages, the same in every
// process, and a sink that writes to a folder under fences.
type mail struct {
	Sources   int
	Mailboxes int // of a source
	Messages  int // of a mailbox
	Lanes     int
	Delay     time.Duration // of each message; with Hold, of those there
	Folder    string
	Hold      string // a mailbox whose fetch waits until the file of that name in Folder is gone; "" none
	Validity  uint32 // UIDVALIDITY of its mailboxes; 0: 7
	Renumbers bool   // a mailbox that is opened has another UIDVALIDITY than was listed
	Budget    source.Budget
	PerHost   int // 0: 100

	counts *counts // of this process
}

// counts are what workers of one process did with a server.
type counts struct {
	open atomic.Int64 // sessions that they have
	most atomic.Int64 // the most at once
	sent atomic.Int64 // octets that were fetched
}

func (m *mail) validity() uint32 { return cmp.Or(m.Validity, 7) }

func (m *mail) plan() *plan.Plan {
	p := &plan.Plan{Name: "test", Chain: stages.NewChain(nil), Concurrency: 4, PerHost: cmp.Or(m.PerHost, 100), Sinks: []plan.Sink{{
		Name: "files", Plugin: "test", Prepared: sink.Prepared{Target: "test://files", Lanes: 2, Needs: message.NeedBody, Fenced: true},
	}}}
	for i := range m.Sources {
		p.Sources = append(p.Sources, plan.Source{
			Name: fmt.Sprintf("s%d", i), Plugin: "test", Host: "h", Selects: func(message.Mailbox) bool { return true },
			Provides: message.NeedSize | message.NeedInternalDate, Rules: "r",
		})
	}
	p.Settle()
	return p
}

func octets(source, mailbox string, uid uint32) string {
	return fmt.Sprintf("Subject: %s %s %d\r\n\r\n%s\r\n", source, mailbox, uid, strings.Repeat("x", int(uid%50)))
}

// want is what an undisturbed run writes: a name of each message, and its octets.
func (m *mail) want() map[string]string {
	out := map[string]string{}
	for s := range m.Sources {
		for b := range m.Mailboxes {
			for uid := 1; uid <= m.Messages; uid++ {
				source, mailbox := fmt.Sprintf("s%d", s), fmt.Sprintf("m%d", b)
				out[name(source, mailbox, uint32(uid))] = octets(source, mailbox, uint32(uid))
			}
		}
	}
	return out
}

func name(source, mailbox string, uid uint32) string {
	return fmt.Sprintf("%s-%s-%d", source, mailbox, uid)
}

// OpenSource opens a session.
func (m *mail) OpenSource(_ context.Context, s *plan.Source, _ bool) (source.Opened, error) {
	return source.Opened{Source: &mailSession{mail: m, source: s.Name}, Lanes: m.Lanes, URL: "test://h", Budget: m.Budget}, nil
}

// share opens a session for one of several workers, and counts it.
func (m *mail) share(_ context.Context, s *plan.Source, _ int, _ bool) (source.Opened, error) {
	c := m.counts
	n := c.open.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	return source.Opened{Source: &mailSession{m, s.Name, true}, Lanes: m.Lanes, URL: "test://h", Budget: m.Budget}, nil
}

// OpenStage is never called: there are no stages.
func (m *mail) OpenStage(context.Context, *stages.Stage, bool) (stage.Stage, error) {
	panic("no stages")
}

type mailSession struct {
	*mail
	source  string
	counted bool
}

func (s *mailSession) state() message.MailboxState {
	return message.MailboxState{Messages: int64(s.Messages), Bytes: -1, UIDValidity: s.validity(), Content: fmt.Sprint(s.validity(), s.Messages)}
}

func (s *mailSession) Mailboxes(context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		for i := range s.mail.Mailboxes {
			if !yield(message.Mailbox{Name: fmt.Sprintf("m%d", i), Selectable: true, State: s.state()}, nil) {
				return
			}
		}
	}
}

func (s *mailSession) List(_ context.Context, req source.ListRequest) iter.Seq2[message.Summary, error] {
	return func(yield func(message.Summary, error) bool) {
		state := s.state()
		if s.Renumbers && s.counted {
			state.UIDValidity++
		}
		if req.State != nil {
			req.State(state)
		}
		n := 0
		for i := 1; i <= s.Messages; i++ {
			uid := uint32(i)
			if req.Newest {
				uid = uint32(s.Messages + 1 - i)
			}
			if req.After != nil && (!req.Newest && uid <= req.After.UID || req.Newest && uid >= req.After.UID) {
				continue
			}
			if req.Limit > 0 && n == req.Limit {
				return
			}
			n++
			sum := message.Summary{ID: message.ID{Mailbox: req.Mailbox, UIDValidity: state.UIDValidity, UID: uid}, Have: req.Needs, Size: int64(len(octets(s.source, req.Mailbox, uid)))}
			if !yield(sum, nil) {
				return
			}
		}
	}
}

func (s *mailSession) Fetch(ctx context.Context, req source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(yield func(source.Fetched, error) bool) {
		for ids := range req.IDs {
			for _, id := range ids {
				delay := s.Delay
				if s.Hold != "" && s.Hold != id.Mailbox {
					delay = 0
				}
				select {
				case <-time.After(delay): // a server takes its time
				case <-ctx.Done():
					yield(source.Fetched{}, context.Cause(ctx))
					return
				}
				for s.Hold == id.Mailbox && id.UID > 1 {
					if _, err := os.Stat(filepath.Join(s.Folder, s.Hold)); err != nil {
						break
					}
					time.Sleep(time.Millisecond) // until the test takes the file away
				}
				text := octets(s.source, id.Mailbox, id.UID)
				s.counts.sent.Add(int64(len(text)))
				m := &message.Message{Summary: message.Summary{ID: id, Have: req.Needs &^ message.NeedBody, Size: int64(len(text))}, Body: message.BodyOf([]byte(text))}
				if !yield(source.Fetched{ID: id, Message: m}, nil) {
					return
				}
			}
		}
	}
}

func (s *mailSession) Close() error {
	if s.counted {
		s.counts.open.Add(-1)
	}
	return nil
}

// OpenSink opens a session under a fence. Its checkpoint names the files that
// count; the lock says whether two owners of a task are at work at once.
func (m *mail) OpenSink(_ context.Context, _ *plan.Sink, st sink.State, _ bool) (engine.SinkSession, error) {
	s := &files{mail: m, fence: st.Fence, names: map[string]string{}}
	if st.Checkpoint != nil {
		if err := json.Unmarshal(st.Checkpoint, &s.names); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(m.Folder, "owner-"+st.Fence.Task), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	s.lock = f
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		trouble(m.Folder, fmt.Sprintf("two owners of task %s at once, one with fence %d", st.Fence.Task, st.Fence.Number))
	}
	return s, nil
}

// trouble leaves a note for the test.
func trouble(folder, text string) {
	f, err := os.CreateTemp(folder, "trouble-")
	if err == nil {
		_, _ = io.WriteString(f, text)
		f.Close()
	}
}

type files struct {
	*mail
	fence sink.Fence
	lock  *os.File

	mu    sync.Mutex
	names map[string]string // message -> file
}

func (s *files) Lane(context.Context) (engine.Lane, error) { return fileLane{s}, nil }

func (s *files) Flush(context.Context) (sink.Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.Marshal(s.names)
}

func (s *files) Committed(context.Context, sink.Checkpoint) error { return nil }
func (s *files) Close() error                                     { return s.lock.Close() }

type fileLane struct{ *files }

func (l fileLane) Put(_ context.Context, m *message.Message, done func(sink.Receipt, error)) error {
	b, err := io.ReadAll(m.Body)
	if err != nil {
		return err
	}
	id := m.Summary.ID
	of := name(id.Source, id.Mailbox, id.UID)
	file := fmt.Sprintf("%s~%d", of, l.fence.Number)
	err = os.WriteFile(filepath.Join(l.Folder, file), b, 0o600)
	l.mu.Lock()
	l.names[of] = file
	l.mu.Unlock()
	go done(sink.Receipt{Path: file}, err)
	return nil
}

func (l fileLane) Close() error { return nil }
