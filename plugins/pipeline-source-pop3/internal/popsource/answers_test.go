package popsource

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/popscript"
)

// TestEveryAnswerToEveryCommand holds each command of a whole session against
// each bad answer. Whatever comes: no panic, no hang, every id that is listed is
// answered once or the fetch says why not, no octet is another's, and when the
// server is itself again all that it has comes.
func TestEveryAnswerToEveryCommand(t *testing.T) {
	t.Parallel()
	verbs := []string{"greeting", "CAPA", "STLS", "USER", "PASS", "AUTH", "STAT", "LIST", "UIDL", "TOP", "RETR", "DELE", "LAST", "RSET", "QUIT"}
	answers := []struct{ name, text string }{
		{"nothing", ""}, // and then silence
		{"an empty line", "\r\n"},
		{"half a word", "+O"},
		{"no status", "hello\r\n"},
		{"another protocol", "* OK IMAP4rev1 ready\r\n"},
		{"binary", "\x00\xff\xfe\r\n"},
		{"a bare plus", "+\r\n"},
		{"a challenge without end", "+ \r\n+ \r\n+ \r\n+ \r\n+ \r\n+ \r\n+ \r\n+ \r\n+ \r\n+ \r\n+ \r\n+ \r\n"},
		{"a refusal without words", "-ERR\r\n"},
		{"a refusal with code", "-ERR [SYS/PERM] never\r\n"},
		{"a status without words", "+OK\r\n"},
		{"numbers out of range", "+OK -1 18446744073709551616 1e9\r\n.\r\n"},
		{"a line of 200 KB", "+OK " + strings.Repeat("x", 200<<10) + "\r\n"},
		{"an answer and one too many", "+OK\r\n.\r\n+OK\r\n.\r\n"},
		{"the end only", ".\r\n"},
		{"an end of lines of its own", "+OK\n1 1\n.\n"},
	}
	messages := samples(3)
	limit := make(chan struct{}, 40) // nearly all that these do is wait
	var wg sync.WaitGroup
	for _, verb := range verbs {
		for _, answer := range answers {
			limit <- struct{}{}
			wg.Go(func() {
				defer func() { <-limit }()
				script := popscript.Script{Messages: messages, Command: func(c *popscript.Conn, v, _ string) bool {
					if v != verb {
						return false
					}
					c.Write("%s", answer.text)
					if !strings.HasSuffix(answer.text, "\n") {
						c.Wait()
					}
					return true
				}}
				if verb == "greeting" {
					script.Greeting = strings.TrimSuffix(answer.text, "\r\n") + " "
				}
				server := popscript.Start(t, script)
				c := plainConfig(server.Addr)
				c.Timeouts.Read = 300 * time.Millisecond
				if verb == "STLS" {
					c.Security = "starttls"
					server.Change(func(s *popscript.Script) { s.CAPA = []string{"STLS", "UIDL", "TOP"} })
				}
				if verb != "AUTH" {
					c.Auth.Mechanism = "user"
				}
				name := verb + " answered by " + answer.name
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				defer cancel()
				if err := survive(ctx, c, messages, verb); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if ctx.Err() != nil {
					t.Errorf("%s: it hangs", name)
				}
				c.Security, c.Timeouts.Read = "none", 20*time.Second
				server.Change(func(s *popscript.Script) { s.Command, s.Greeting, s.Messages = nil, "+OK", messages })
				if got, err := bodies(ctx, c); err != nil || len(got) != 3 {
					t.Errorf("%s: when it is over %d messages come, %v", name, len(got), err)
				}
			})
		}
	}
	wg.Wait()
}

// survive exports and deletes, and returns what must not be.
func survive(ctx context.Context, c Config, messages []popscript.Message, verb string) error {
	got, err := bodies(ctx, c)
	if f := fault.As(err); err != nil && (f == nil || f.Class == fault.Bug || f.Class == fault.Unknown) {
		return fmt.Errorf("an error without a class: %w", err)
	}
	seen := map[string]bool{}
	for id, raw := range got {
		known := slices.ContainsFunc(messages, func(m popscript.Message) bool { return m.Raw == raw })
		if seen[raw] || !known && verb != "RETR" { // what RETR is answered by is the message
			return fmt.Errorf("%s came as %q", id, raw)
		}
		seen[raw] = verb != "RETR"
	}
	return nil
}

// bodies goes the whole way on one source, with headers, DELE and the session's
// end, and returns what came.
func bodies(ctx context.Context, c Config) (map[message.ID]string, error) {
	o, err := openQuietly(ctx, c)
	if err != nil {
		return nil, err
	}
	defer o.Source.Close()
	s := o.Source.(*Source)
	s.rest = time.Millisecond
	var ids []message.ID
	for sum, err := range s.List(ctx, source.ListRequest{Mailbox: inbox, Needs: message.NeedSize | message.NeedHeaders}) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, sum.ID)
	}
	got, answered := map[message.ID]string{}, map[message.ID]bool{}
	for f, err := range s.Fetch(ctx, source.FetchRequest{Mailbox: inbox, Needs: message.NeedBody, IDs: slices.Values([][]message.ID{ids})}) {
		if err != nil {
			return got, err
		}
		if answered[f.ID] {
			return got, fault.New(fault.Bug, "%s is answered twice", f.ID)
		}
		answered[f.ID] = true
		if f.Err != nil {
			continue
		}
		raw, err := io.ReadAll(f.Message.Body)
		if err == nil {
			got[f.ID] = string(raw)
		}
	}
	if len(answered) != len(ids) {
		return got, fault.New(fault.Bug, "%d of %d ids are answered", len(answered), len(ids))
	}
	if len(ids) == 0 {
		return got, nil
	}
	for f, err := range s.Finish(ctx, source.FinishRequest{Mailbox: inbox, IDs: ids[:1], Action: source.Action{Delete: true}}) {
		if err != nil {
			return got, err
		}
		if f.ID != ids[0] {
			return got, fault.New(fault.Bug, "%s is finished, asked for was %s", f.ID, ids[0])
		}
	}
	return got, nil
}
