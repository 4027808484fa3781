package imapsource

import (
	"bytes"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// bareItems are what asks for nothing that a search doesn't tell.
const bareItems = "(UID)"

// fetchItems returns the items of a FETCH command. UID comes first, so that
// servers that keep the order send it before a body.
func fetchItems(s *Source, mailbox string, n message.Needs, body string) string {
	items := []string{"UID"}
	add := func(need message.Needs, words ...string) {
		if n&need != 0 {
			items = append(items, words...)
		}
	}
	add(message.NeedSize, "RFC822.SIZE")
	add(message.NeedInternalDate, "INTERNALDATE")
	add(message.NeedFlags, "FLAGS")
	if s.gmail {
		add(message.NeedGmail, "X-GM-MSGID", "X-GM-THRID")
		if s.placing(mailbox) {
			items = append(items, "X-GM-LABELS")
		} else {
			add(message.NeedGmail|message.NeedFlags, "X-GM-LABELS")
		}
	}
	if s.objectID {
		add(message.NeedGmail, "EMAILID")
	}
	add(message.NeedStructure, "BODYSTRUCTURE")
	if n != 0 {
		items = append(items, s.config.ExtraFields...)
	}
	if body == "" {
		add(message.NeedHeaders, "BODY.PEEK[HEADER]")
	} else {
		items = append(items, body)
	}
	return "(" + strings.Join(items, " ") + ")"
}

// fill puts what the server said into a summary. The octets are copied: the
// summary outlives the response.
func fill(s *message.Summary, it *imapdata.Items, needs message.Needs) {
	if it.Seq != 0 {
		s.SequenceNumber = it.Seq
	}
	have := it.Have & needs
	if have.Has(message.NeedSize) {
		s.Size = it.Size
	}
	if have.Has(message.NeedInternalDate) {
		s.InternalDate = it.InternalDate
	}
	if have.Has(message.NeedFlags) {
		s.Flags, s.Keywords = imapdata.SplitFlags(it.Flags)
		s.Labels = it.Gmail.Labels
	}
	if have.Has(message.NeedHeaders) {
		s.Header = message.NewHeader(bytes.Clone(it.Header))
	}
	if have.Has(message.NeedStructure) {
		part, ok := imapdata.Structure(it.Structure)
		s.Structure = part
		if !ok {
			have &^= message.NeedStructure
		}
	}
	if it.HaveGmail && needs.Has(message.NeedGmail) {
		g := it.Gmail
		s.Gmail, s.ObjectID = &g, imapdata.Uint64(g.MessageID)
		have |= message.NeedGmail
	}
	if it.ObjectID != "" && needs.Has(message.NeedGmail) {
		s.ObjectID = it.ObjectID
		have |= message.NeedGmail
	}
	s.Have |= have
	for k, v := range it.Extra {
		if s.Extra == nil {
			s.Extra = map[string]string{}
		}
		s.Extra[k] = v
	}
}
