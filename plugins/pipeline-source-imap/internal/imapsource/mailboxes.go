package imapsource

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// Mailboxes lists all mailboxes in the order of their names, INBOX first,
// with their states: one round trip where the server has LIST-STATUS, else
// two, the second for all mailboxes together.
func (s *Source) Mailboxes(ctx context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		all, err := s.mailboxes(ctx)
		if err != nil {
			yield(message.Mailbox{}, err)
			return
		}
		for _, m := range all {
			if !yield(m, nil) {
				return
			}
		}
	}
}

func (s *Source) mailboxes(ctx context.Context) ([]message.Mailbox, error) {
	c, err := s.pool.Reach(ctx, nil)
	if err != nil {
		return nil, err
	}
	var slow mailnet.Backoff
	for try := 0; ; try++ {
		all, err := s.list(ctx, c)
		if err == nil || !c.Broken() || try == mailnet.MaxReconnects {
			s.pool.Put(c)
			return all, err
		}
		if c, err = s.pool.Again(ctx, c, err, &slow); err != nil {
			return nil, err
		}
	}
}

// listed is a mailbox and the name that the server calls it by.
type listed struct {
	message.Mailbox
	raw string
}

func (s *Source) list(ctx context.Context, c *imapconn.Conn) ([]message.Mailbox, error) {
	items := statusItems(c)
	states := map[string]imapdata.Status{}
	var found []listed
	var own naming
	collect := func(r *imapconn.Response) error {
		switch r.Name {
		case "LIST", "XLIST":
			if l, ok := imapdata.ReadList(r.Data); ok {
				if own.separator == 0 {
					own.separator = l.Separator
				}
				found = append(found, listed{raw: l.Raw, Mailbox: message.Mailbox{
					Name: l.Name(c.UTF8()), SpecialUse: specialUse(&l),
					Selectable: !l.Has(`\Noselect`) && !l.Has(`\NonExistent`),
					State:      message.MailboxState{Messages: -1, Bytes: -1},
				}})
			}
		case "STATUS":
			if st, ok := imapdata.ReadStatus(r.Data); ok {
				states[st.Raw] = st
			}
		}
		return nil
	}
	var spaces imapdata.Namespaces
	known := false
	// everywhere lists what is the user's own and all that the server counts
	// to it, and then the namespaces that it left out; what those are it asks
	// in the same round trip.
	everywhere := func(options string) error {
		commands := []string{`LIST "" "*"` + options}
		if c.Has("NAMESPACE") && !known {
			commands = append(commands, "NAMESPACE")
		}
		refused, err := c.Together(ctx, commands, func(r *imapconn.Response) error {
			if r.Name == "NAMESPACE" {
				spaces = namespaces(r)
			}
			return collect(r)
		})
		if err != nil {
			return err
		}
		known, own.prefix = true, spaces.Personal
		err = refused[0]
		for _, prefix := range spaces.Others {
			if err != nil || slices.ContainsFunc(found, func(l listed) bool { return strings.HasPrefix(l.raw, prefix) }) {
				continue
			}
			_, err = c.Do(ctx, `LIST "" `+c.String(prefix+"*")+options, collect)
		}
		return err
	}
	together := c.Has("LIST-STATUS")
	if together {
		use := ""
		if c.Has("SPECIAL-USE") {
			use = "SPECIAL-USE "
		}
		err := everywhere(` RETURN (` + use + `STATUS (` + items + `))`)
		if err != nil && c.Broken() {
			return nil, fault.Wrap(fault.Unavailable, err, "list the mailboxes")
		}
		together = err == nil // else it is promised but not kept: the plain way
	}
	if !together {
		found = found[:0]
		if err := everywhere(""); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "list the mailboxes")
		}
		if err := s.statuses(ctx, c, found, items, collect); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "ask for the mailboxes' states")
		}
	}
	return s.name(found, states, own), nil
}

// naming is how the server writes names of the user's own mailboxes.
type naming struct {
	prefix    string // as "INBOX."
	separator byte
}

// raw returns what the server would call a mailbox that isn't there yet.
func (n naming) raw(name string, utf8 bool) string {
	if n.separator != 0 && n.separator != '/' {
		name = strings.ReplaceAll(name, "/", string(rune(n.separator)))
	}
	if !utf8 {
		name = imapdata.EncodeName(name)
	}
	if !strings.HasPrefix(name, n.prefix) {
		name = n.prefix + name
	}
	return name
}

// namespaces returns the prefixes of names (RFC 2342). The roots of a file
// system, which some servers name here, aren't mail.
func namespaces(r *imapconn.Response) imapdata.Namespaces {
	n := imapdata.ReadNamespaces(r.Data)
	n.Others = slices.DeleteFunc(n.Others, func(p string) bool {
		return p == "" || p == "/" || strings.HasPrefix(p, "~") || strings.HasPrefix(p, "#news") || strings.HasPrefix(p, "#ftp")
	})
	return n
}

func statusItems(c *imapconn.Conn) string {
	items := "MESSAGES UIDNEXT UIDVALIDITY"
	if c.Has("CONDSTORE") {
		items += " HIGHESTMODSEQ"
	}
	if c.Has("STATUS=SIZE") {
		items += " SIZE"
	}
	return items
}

// statusWindow is how many STATUS commands are under way at once.
const statusWindow = 32

// statuses asks for the state of each mailbox, all commands in a row. A
// mailbox whose state the server refuses stays without.
func (s *Source) statuses(ctx context.Context, c *imapconn.Conn, all []listed, items string, collect func(*imapconn.Response) error) error {
	release := c.Net().CloseOn(ctx)
	defer release()
	waiting := map[string]bool{}
	read := func() error {
		r, err := c.Next()
		if err != nil {
			return err
		}
		if r.Tag != "" {
			delete(waiting, r.Tag)
			return nil
		}
		return collect(r)
	}
	for _, m := range all {
		if !m.Selectable {
			continue
		}
		arg := c.String(m.raw)
		alone := imapconn.Waits(arg) // the server answers in the middle of the command
		for len(waiting) >= statusWindow || alone && len(waiting) > 0 {
			if err := read(); err != nil {
				return err
			}
		}
		if alone {
			if _, err := c.Do(ctx, "STATUS "+arg+" ("+items+")", collect); err != nil && c.Broken() {
				return err
			}
			continue
		}
		tag, err := c.Send("STATUS " + arg + " (" + items + ")")
		if err != nil {
			return err
		}
		waiting[tag] = true
	}
	for len(waiting) > 0 {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

// name gives each mailbox a name of its own and remembers what the server
// calls it.
func (s *Source) name(found []listed, states map[string]imapdata.Status, own naming) []message.Mailbox {
	raws, special := map[string]string{}, map[string]string{}
	all, once := allMail(found), s.once()
	counts := map[string]int64{}
	var out []message.Mailbox
	for _, m := range found {
		if other, taken := raws[m.Name]; taken {
			if other == m.raw {
				continue // listed twice
			}
			// Two spellings that read the same: the second keeps its octets.
			m.Name = strings.ToValidUTF8(m.raw, "\uFFFD")
			for raws[m.Name] != "" {
				m.Name += "~"
			}
		}
		raws[m.Name] = m.raw
		for _, use := range m.SpecialUse {
			if special[use] == "" {
				special[use] = m.Name
			}
		}
		if m.Overlaps = once && m.Selectable && !slices.ContainsFunc(m.SpecialUse, apart); m.Overlaps {
			m.Within = all
		}
		if st, ok := states[m.raw]; ok && m.Selectable {
			counts[m.Name] = st.Messages
			m.State = state(st.Messages, st.Size, st.UIDValidity, st.UIDNext, st.ModSeq)
		}
		out = append(out, m.Mailbox)
	}
	slices.SortStableFunc(out, func(a, b message.Mailbox) int {
		if (a.Name == "INBOX") != (b.Name == "INBOX") {
			if a.Name == "INBOX" {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	s.mu.Lock()
	s.raws, s.own, s.uses, s.counts = raws, own, special, counts
	s.hidesAll = once && all == ""
	s.mu.Unlock()
	return out
}

var uses = map[string]string{
	`\all`: "all", `\archive`: "archive", `\drafts`: "drafts", `\flagged`: "flagged", `\junk`: "junk", `\sent`: "sent",
	`\trash`: "trash", `\important`: "important", `\allmail`: "all", `\spam`: "junk", `\starred`: "flagged",
}

// specialUse returns what a mailbox is for (RFC 6154, and Gmail's older XLIST
// words).
func specialUse(l *imapdata.Listed) []string {
	var out []string
	for _, a := range l.Attributes {
		if u, ok := uses[strings.ToLower(a)]; ok && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out
}
