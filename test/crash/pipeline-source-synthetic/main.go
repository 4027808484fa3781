// Command pipeline-source-synthetic is a source whose messages are made, and
// always the same: the tests of crashes and of big mailboxes read from it.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

const provides = message.NeedSize | message.NeedInternalDate | message.NeedFlags | message.NeedHeaders | message.NeedBody

// bigBody is the size of a body that travels as a stream.
const bigBody = 3 << 19

type config struct {
	Messages  int           `json:"messages" min:"1" max:"1000000" required:"true" doc:"messages in all mailboxes together"`
	Mailboxes int           `json:"mailboxes" min:"1" max:"1000" default:"1" doc:"mailboxes"`
	Seed      int           `json:"seed" default:"1" doc:"other messages for another number"`
	Size      int           `json:"size" min:"1" max:"65536" default:"2000" doc:"octets of a body on average"`
	Big       int           `json:"big" min:"0" default:"0" doc:"every so manieth message has 1.5 MiB; 0: none"`
	Refuse    int           `json:"refuse" min:"0" default:"0" doc:"every so manieth message can't be fetched; 0: none"`
	Delay     time.Duration `json:"delay" default:"0s" doc:"how long each body takes"`
	Validity  uint32        `json:"validity" min:"1" default:"7" doc:"UIDVALIDITY of all mailboxes"`
	Finished  string        `json:"finished" doc:"file that gets a line for each message that is finished; with after"`
	Lanes     int           `json:"lanes" min:"1" max:"16" default:"3" doc:"connections"`
}

func main() {
	source.Serve(source.Plugin[config]{
		Name: "synthetic", Version: "1.0.0", Summary: "messages that are made, for tests", Provides: provides,
		Open: func(_ context.Context, c config, _ source.Env) (source.Opened, error) {
			return source.Opened{Source: &server{config: c, text: text()}, Lanes: c.Lanes, URL: "synthetic://"}, nil
		},
	})
}

// server makes the messages.
type server struct {
	config
	text []byte // bodies are cut from it
}

// text returns lines of printable octets, more than the largest body.
func text() []byte {
	out := make([]byte, 0, bigBody+(1<<18))
	state := uint64(1)
	for len(out)+78 <= cap(out) {
		for range 76 {
			state = mix(state)
			out = append(out, ' '+byte(state%94))
		}
		out = append(out, '\r', '\n')
	}
	return out
}

// mix is the finalizer of splitmix64: cheap, and it spreads well.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (s *server) name(box int) string {
	switch {
	case box == 0:
		return "INBOX"
	case box%2 == 1:
		return fmt.Sprintf("Work/Project %d", box)
	}
	return fmt.Sprintf("Archiv/Jahr %d – Ärger", box)
}

func (s *server) box(name string) (int, error) {
	for b := range s.config.Mailboxes {
		if s.name(b) == name {
			return b, nil
		}
	}
	return 0, fault.New(fault.Gone, "there is no mailbox %q", name)
}

func (s *server) count(box int) uint32 {
	n := s.Messages / s.config.Mailboxes
	if box < s.Messages%s.config.Mailboxes {
		n++
	}
	return uint32(n)
}

func (s *server) state(box int) message.MailboxState {
	n := s.count(box)
	return message.MailboxState{
		Messages: int64(n), Bytes: -1, UIDValidity: s.Validity, Content: fmt.Sprintf("%d/%d/%d", s.Validity, n, s.Seed), Flags: "1",
	}
}

// mail is a message: a header that is made, and a body that is cut from text.
type mail struct {
	header []byte
	body   []byte
	at     time.Time
	flags  []string
	big    bool
	broken bool
}

func (s *server) mail(header []byte, box int, uid uint32) mail {
	luck := mix(uint64(s.Seed)<<40 ^ uint64(box)<<32 ^ uint64(uid))
	m := mail{at: time.Date(2020, 1, 1, 0, 0, int(luck%(5*365*86400)), 0, time.UTC)}
	every := func(n int) bool { return n > 0 && int(uid)%n == n/2 }
	m.big, m.broken = every(s.Big), every(s.Refuse)
	size := bigBody
	if !m.big {
		size = 1 + int(luck>>8)%(2*s.Size)
	}
	from := int(luck>>32) % (len(s.text) - size)
	m.body = s.text[from : from+size]
	if luck&1 == 0 {
		m.flags = []string{`\Seen`}
	}
	header = append(header, "From: sender"...)
	header = fmt.Appendf(header, "%d@example.com\r\nTo: all@example.org\r\nSubject: Message %d of %s, kind %d\r\nDate: ", luck%97, uid, "the run", luck%10)
	header = m.at.AppendFormat(header, "Mon, 02 Jan 2006 15:04:05 -0700")
	m.header = fmt.Appendf(header, "\r\nMessage-ID: <%d.%d.%x@example.com>\r\n\r\n", box, uid, luck)
	return m
}

func (m *mail) size() int64 { return int64(len(m.header) + len(m.body)) }

func (m *mail) summary(id message.ID, needs message.Needs) message.Summary {
	sum := message.Summary{ID: id, Have: needs & provides &^ message.NeedBody}
	if needs.Has(message.NeedSize) {
		sum.Size = m.size()
	}
	if needs.Has(message.NeedInternalDate) {
		sum.InternalDate = m.at
	}
	if needs.Has(message.NeedFlags) {
		sum.Flags = m.flags
	}
	if needs.Has(message.NeedHeaders) {
		sum.Header = message.NewHeader(bytes.Clone(m.header))
	}
	return sum
}

// Mailboxes implements source.Source.
func (s *server) Mailboxes(context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		for b := range s.config.Mailboxes {
			if !yield(message.Mailbox{Name: s.name(b), Selectable: true, State: s.state(b)}, nil) {
				return
			}
		}
	}
}

// List implements source.Source.
func (s *server) List(ctx context.Context, req source.ListRequest) iter.Seq2[message.Summary, error] {
	return func(yield func(message.Summary, error) bool) {
		box, err := s.box(req.Mailbox)
		if err != nil {
			yield(message.Summary{}, err)
			return
		}
		if req.State != nil {
			req.State(s.state(box))
		}
		var header []byte
		n := 0
		for uid := range s.uids(box, req) {
			if req.Limit > 0 && n == req.Limit || ctx.Err() != nil {
				break
			}
			n++
			m := s.mail(header[:0], box, uid)
			header = m.header
			if !yield(m.summary(message.ID{Mailbox: req.Mailbox, UIDValidity: s.Validity, UID: uid}, req.Needs), nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(message.Summary{}, err)
		}
	}
}

// uids yields those that a request asks for, in its order.
func (s *server) uids(box int, req source.ListRequest) iter.Seq[uint32] {
	last := s.count(box)
	return func(yield func(uint32) bool) {
		if req.IDs != nil {
			for _, id := range req.IDs {
				if id.UID >= 1 && id.UID <= last && !yield(id.UID) {
					return
				}
			}
			return
		}
		uid, step, end := uint32(1), uint32(1), last+1
		if req.Newest {
			uid, step, end = last, ^uint32(0), 0
		}
		if req.After != nil {
			uid = req.After.UID + step
		}
		for ; uid != end; uid += step {
			if !yield(uid) {
				return
			}
		}
	}
}

// Fetch implements source.Source.
func (s *server) Fetch(ctx context.Context, req source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(yield func(source.Fetched, error) bool) {
		box, err := s.box(req.Mailbox)
		if err != nil {
			yield(source.Fetched{}, err)
			return
		}
		var header, octets []byte
		for ids := range req.IDs {
			for _, id := range ids {
				if s.Delay > 0 {
					time.Sleep(s.Delay)
				}
				if err := ctx.Err(); err != nil {
					yield(source.Fetched{}, err)
					return
				}
				m := s.mail(header[:0], box, id.UID)
				header = m.header
				f := source.Fetched{ID: id}
				switch {
				case id.UID > s.count(box) || id.UIDValidity != s.Validity:
					f.Err = fault.New(fault.Gone, "there is no message %d", id.UID)
				case m.broken:
					f.Err = fault.New(fault.Message, "the server can't read message %d", id.UID).WithReason("server_error")
				case m.big:
					f.Message = &message.Message{Summary: m.summary(id, req.Needs),
						Body: message.NewBody(io.MultiReader(bytes.NewReader(m.header), bytes.NewReader(m.body)), m.size(), nil)}
				default:
					octets = append(append(octets[:0], m.header...), m.body...)
					f.Message = &message.Message{Summary: m.summary(id, req.Needs), Body: message.BodyOf(octets)}
				}
				if !yield(f, nil) {
					return
				}
			}
		}
	}
}

// Close implements source.Source.
func (s *server) Close() error { return nil }

// Finish implements source.Finisher: it notes what it did before it says so,
// as a server does.
func (s *server) Finish(_ context.Context, req source.FinishRequest) iter.Seq2[source.Finished, error] {
	return func(yield func(source.Finished, error) bool) {
		f, err := os.OpenFile(s.Finished, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			yield(source.Finished{}, fault.New(fault.Unavailable, "%w", err))
			return
		}
		defer f.Close()
		for _, id := range req.IDs {
			_, err := fmt.Fprintf(f, "%s\t%d\n", req.Mailbox, id.UID)
			if !yield(source.Finished{ID: id, Err: err}, nil) {
				return
			}
		}
	}
}
