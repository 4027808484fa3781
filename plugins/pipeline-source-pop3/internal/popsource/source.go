package popsource

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-pop3/internal/popconn"
)

// Provides is what a POP3 server can tell at most: there are neither flags nor
// dates nor structures.
const Provides = message.NeedSize | message.NeedHeaders | message.NeedBody

// maxIdle is how long a session may rest in the pool. A server hangs up after
// 10 minutes at the earliest (RFC 1939 §3), firewalls sooner.
const maxIdle = 4 * time.Minute

// Source is one account on one server.
type Source struct {
	config   Config
	settings *popconn.Settings
	log      *slog.Logger
	spool    *message.Spool
	pool     *mailnet.Pool[*session]
	uidls    map[string]bool // of select; nil: all

	// rest is how long the source rests when a server says that it is
	// throttling, and not for how long.
	rest time.Duration

	// doubt is when a message was last found missing, in nanoseconds: a
	// session from before can't say whether it is there.
	doubt atomic.Int64
	// topless is set when the server turned out to know no TOP.
	topless atomic.Bool

	mu      sync.Mutex
	known   *drop            // the last that is identified
	listing *drop            // what List pages over
	fates   map[uint64]*fate // with advance: by id
}

// Opener returns the plugin's Open. All its sessions share tokens.
func Opener(tokens *mailnet.Tokens) func(context.Context, Config, source.Env) (source.Opened, error) {
	return func(ctx context.Context, c Config, env source.Env) (source.Opened, error) {
		return open(ctx, c, env, tokens)
	}
}

// open logs in, so that a wrong password is known before any work, and tries a
// second session where several are wanted, so that a lock is known, too.
func open(ctx context.Context, c Config, env source.Env, tokens *mailnet.Tokens) (source.Opened, error) {
	if err := c.Validate(); err != nil {
		return source.Opened{}, err
	}
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{config: c, settings: c.settings(tokens), log: log, spool: env.Spool, rest: 5 * time.Second, fates: map[uint64]*fate{}}
	if len(c.Select.UIDLs) > 0 {
		s.uidls = map[string]bool{}
		for _, u := range c.Select.UIDLs {
			s.uidls[u] = true
		}
	}
	s.pool = &mailnet.Pool[*session]{
		Open: s.openSession, End: s.end, MaxIdle: maxIdle, Log: log,
		TooMany: func(err error) bool {
			return popconn.InUse(err) || fault.Is(err, fault.Throttled)
		},
	}
	s.pool.Start(max(c.Connections, 1))
	first, err := s.pool.Get(ctx, nil)
	if err != nil {
		return source.Opened{}, err
	}
	var notes []string
	if first.Capable() && !first.Has("UIDL") {
		notes = append(notes, "the server knows no UIDL: each message is known by the sha256 of its header, which takes one TOP a message")
	}
	if c.Connections > 1 {
		note, err := s.second(ctx, &first)
		if err != nil {
			return source.Opened{}, err
		}
		if note != "" {
			notes = append(notes, note)
		}
	}
	facts := first.Net().Facts()
	s.pool.Put(first)
	budget := source.Budget{Bytes: max(0, c.Budget.Bytes.Octets), Per: c.Budget.Bytes.Per}
	return source.Opened{
		Source: s, Lanes: s.pool.Size(), Provides: Provides, URL: c.URL(mailnet.POP3), Notes: notes,
		Budget: budget, Finishes: c.Advance, Facts: facts,
	}, nil
}

// second tries one more session beside the first. Some servers lock the
// mailbox (RFC 1939 §4), and some end the session that had it: then the first
// is replaced.
func (s *Source) second(ctx context.Context, first **session) (note string, err error) {
	other, err := s.openSession(ctx)
	if err == nil {
		// Did the first survive?
		if _, err = (*first).Do("NOOP"); err != nil && !isRefused(err) {
			s.pool.Limit(1)
			s.pool.Put(*first) // broken: this closes it
			s.pool.Add(other)
			if *first, err = s.pool.Get(ctx, nil); err != nil {
				return "", err
			}
			return fmt.Sprintf("the server ends a session when another begins: going on with 1 of %d connections", s.config.Connections), nil
		}
		s.pool.Add(other)
		return "", nil
	}
	if !popconn.InUse(err) && !fault.Is(err, fault.Throttled) {
		return "", nil // the pool finds out when it matters
	}
	s.pool.Limit(1)
	return fmt.Sprintf("the server grants one session at a time: going on with 1 of %d connections (%s)", s.config.Connections, err.Error()), nil
}

// state returns what the host keeps of the maildrop, with what the server hides
// of it.
func (s *Source) state(d *drop) message.MailboxState {
	st := d.state()
	if weak := len(d.weakOnes); weak > 0 && s.config.Identity != "headers" {
		st.BlindSpots = append(st.BlindSpots, fmt.Sprintf("%d of %d messages have no unique id of their own (UIDL missing, doubled or invalid): each is known by the sha256 of its header, which takes one TOP a message", weak, d.len()))
	}
	if d.count >= 0 && d.count != int64(d.len()) {
		st.BlindSpots = append(st.BlindSpots, fmt.Sprintf("the server counts %d messages and lists %d", d.count, d.len()))
	}
	if s.gmail() {
		st.BlindSpots = append(st.BlindSpots, "Gmail lists some 250 conversations a POP3 session and leaves out what was popped before: recent: true lists the last 30 days, advance: true goes on to the next, the imap plugin lists everything")
	}
	return st
}

func (s *Source) gmail() bool {
	return s.config.Provider == "gmail" || s.config.Provider == "google-workspace"
}

// Lanes returns how many sessions the server grants.
func (s *Source) Lanes() int { return s.pool.Size() }

// Mailboxes yields the one mailbox that there is.
func (s *Source) Mailboxes(ctx context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		sess, err := s.reach(ctx)
		if err != nil {
			yield(message.Mailbox{}, err)
			return
		}
		d := sess.drop
		s.pool.Put(sess)
		yield(message.Mailbox{Name: inbox, Selectable: true, State: s.state(d)}, nil)
	}
}

// checkMailbox refuses mailboxes that POP3 doesn't have.
func checkMailbox(name string) error {
	if name == inbox || name == "" {
		return nil
	}
	return fault.New(fault.Gone, "mailbox %q: a POP3 server has %s only", name, inbox)
}
