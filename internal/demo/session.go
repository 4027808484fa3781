package demo

import (
	"bufio"
	"bytes"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-message/textproto"
)

const delimiter = '/'

// session is one connection. The library calls it from one goroutine.
type session struct {
	server   *Server
	selected *mailbox
	readOnly bool
}

var _ imapserver.SessionNamespace = (*session)(nil)

func (s *session) Close() error { return nil }

func (s *session) Login(user, password string) error {
	if !s.server.login(user, password) {
		return imapserver.ErrAuthFailed
	}
	return nil
}

func (s *session) Namespace() (*imap.NamespaceData, error) {
	return &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: delimiter}}}, nil
}

func (s *session) find(name string) (*mailbox, error) {
	if m := s.server.mailbox(name); m != nil {
		return m, nil
	}
	return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeNonExistent, Text: "No such mailbox"}
}

func (s *session) Select(name string, options *imap.SelectOptions) (*imap.SelectData, error) {
	m, err := s.find(name)
	if err != nil {
		return nil, err
	}
	s.selected, s.readOnly = m, options.ReadOnly
	return &imap.SelectData{
		Flags:             m.flags,
		NumMessages:       m.count(),
		FirstUnseenSeqNum: m.firstUnseen(),
		UIDNext:           m.uidNext(),
		UIDValidity:       m.validity,
	}, nil
}

func (s *session) Unselect() error {
	s.selected = nil
	return nil
}

func (s *session) Status(name string, options *imap.StatusOptions) (*imap.StatusData, error) {
	m, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return m.status(options), nil
}

func (s *session) List(w *imapserver.ListWriter, ref string, patterns []string, options *imap.ListOptions) error {
	if len(patterns) == 0 { // LIST "" "": only the delimiter is asked for (RFC 3501 §6.3.8)
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: delimiter})
	}
	for _, m := range s.server.mailboxes {
		if options.SelectSpecialUse && m.specialUse == "" || !matchesAny(m.name, ref, patterns) {
			continue
		}
		data := &imap.ListData{Mailbox: m.name, Delim: delimiter, Attrs: append([]imap.MailboxAttr{s.childAttr(m)}, m.attrs...)}
		if options.ReturnStatus != nil && !m.noSelect {
			data.Status = m.status(options.ReturnStatus)
		}
		if err := w.WriteList(data); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) childAttr(m *mailbox) imap.MailboxAttr {
	for _, other := range s.server.mailboxes {
		if strings.HasPrefix(other.name, m.name+string(delimiter)) {
			return imap.MailboxAttrHasChildren
		}
	}
	return imap.MailboxAttrHasNoChildren
}

func matchesAny(name, ref string, patterns []string) bool {
	for _, pattern := range patterns {
		if imapserver.MatchList(name, delimiter, ref, pattern) {
			return true
		}
	}
	return false
}

func (s *session) Fetch(w *imapserver.FetchWriter, set imap.NumSet, options *imap.FetchOptions) error {
	if !s.readOnly {
		for _, section := range options.BodySection {
			if !section.Peek {
				s.server.changes.Add(1) // it would set \Seen
			}
		}
	}
	for i, msg := range s.selected.messages {
		seq := uint32(i) + 1
		if !s.selected.matches(set, seq, msg) {
			continue
		}
		if err := writeMessage(w.CreateMessage(seq), msg, options); err != nil {
			return err
		}
	}
	return nil
}

func writeMessage(w *imapserver.FetchResponseWriter, msg *Message, options *imap.FetchOptions) error {
	if options.UID {
		w.WriteUID(imap.UID(msg.UID))
	}
	if options.Flags {
		w.WriteFlags(msg.imapFlags())
	}
	if options.InternalDate {
		w.WriteInternalDate(msg.InternalDate)
	}
	if options.RFC822Size {
		w.WriteRFC822Size(int64(len(msg.Octets)))
	}
	if options.Envelope {
		// A header that can't be read whole gives an envelope of what could.
		header, _ := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(msg.Octets)))
		w.WriteEnvelope(imapserver.ExtractEnvelope(header))
	}
	if options.BodyStructure != nil {
		w.WriteBodyStructure(imapserver.ExtractBodyStructure(bytes.NewReader(msg.Octets)))
	}
	for _, section := range options.BodySection {
		octets := msg.section(section)
		body := w.WriteBodySection(section, int64(len(octets)))
		if _, err := body.Write(octets); err != nil {
			return err
		}
		if err := body.Close(); err != nil {
			return err
		}
	}
	return w.Close()
}

func (s *session) Poll(*imapserver.UpdateWriter, bool) error { return nil }

func (s *session) Idle(_ *imapserver.UpdateWriter, stop <-chan struct{}) error {
	<-stop
	return nil
}

func (s *session) Subscribe(string) error   { return s.refuse() }
func (s *session) Unsubscribe(string) error { return s.refuse() }
func (s *session) Delete(string) error      { return s.refuse() }

func (s *session) Create(string, *imap.CreateOptions) error { return s.refuse() }

func (s *session) Rename(string, string, *imap.RenameOptions) error { return s.refuse() }

func (s *session) Append(string, imap.LiteralReader, *imap.AppendOptions) (*imap.AppendData, error) {
	return nil, s.refuse()
}

func (s *session) Expunge(*imapserver.ExpungeWriter, *imap.UIDSet) error {
	if s.readOnly { // CLOSE after EXAMINE removes nothing (RFC 3501 §6.4.2)
		return nil
	}
	return s.refuse()
}

func (s *session) Store(*imapserver.FetchWriter, imap.NumSet, *imap.StoreFlags, *imap.StoreOptions) error {
	return s.refuse()
}

func (s *session) Copy(imap.NumSet, string) (*imap.CopyData, error) { return nil, s.refuse() }

// refuse counts an attempt to change something, and answers NO.
func (s *session) refuse() error {
	s.server.changes.Add(1)
	return &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeNoPerm, Text: "The demo mailbox is read-only"}
}
