package imapsource

import (
	"bytes"
	"context"
	"io"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// A message that a server can't or won't send goes down a ladder: with others
// in a batch, alone, and then in two pieces. What the pieces make is marked
// Assembled and never called exact (I4).

// placeholderLimit is the largest mail that Exchange makes up for one that it
// can't convert; they are around 1 KB.
const placeholderLimit = 16 << 10

var (
	placeholderSubject = []byte("Retrieval using the IMAP4 protocol failed for the following message")
	placeholderBody    = []byte("retrieve the following message")
)

// placeholder reports whether octets are the mail that Exchange answers with
// instead of one that it can't convert: subject and text both say so. A mail
// about such a mail has another subject.
func placeholder(octets []byte) bool {
	if len(octets) > placeholderLimit {
		return false
	}
	at := bytes.Index(octets, placeholderSubject)
	if at < 0 {
		return false
	}
	head := header(octets)
	if at >= len(head) || !startsField(octets, at) {
		return false
	}
	text := octets[len(head):]
	return bytes.Contains(text, placeholderBody) || bytes.Contains(text, placeholderSubject)
}

// startsField reports whether what stands at an offset is the value of the
// Subject field from its beginning.
func startsField(octets []byte, at int) bool {
	line := octets[bytes.LastIndexByte(octets[:at], '\n')+1 : at]
	return bytes.EqualFold(bytes.TrimSpace(line), []byte("Subject:"))
}

// assemble asks for a message's header and text by themselves and answers its
// id with the two together. false: the server gives none of it either, or the
// same placeholder.
func (f *fetcher) assemble(ctx context.Context, uid uint32) (bool, error) {
	id := f.pending[uid]
	var head []byte
	var text *message.Body
	var it imapdata.Items
	_, err := f.conn.Do(ctx, "UID FETCH "+imapdata.Uint64(uint64(uid))+" (UID BODY.PEEK[HEADER] BODY.PEEK[TEXT])", func(r *imapconn.Response) error {
		if r.Name != "FETCH" {
			return nil
		}
		it.Seq = r.Num
		it.Read(r.Data)
		if it.Header != nil {
			head = bytes.Clone(it.Header)
		}
		switch {
		case r.Streams && text == nil:
			text = message.NewBody(f.conn.Body(), f.conn.Body().Size(), f.spool)
			if _, err := text.Whole(ctx); err != nil {
				return err
			}
			tail, err := f.conn.Tail()
			if err != nil {
				return err
			}
			it.Read(tail)
			if it.Header != nil {
				head = bytes.Clone(it.Header)
			}
		case it.Section != nil && text == nil:
			text = message.BodyOf(bytes.Clone(it.Section))
		}
		return nil
	})
	defer func() { text.Release() }()
	if err != nil {
		if f.conn.Broken() {
			return false, err
		}
		return false, nil
	}
	if len(head) == 0 || text == nil {
		return false, nil
	}
	if whole, err := text.Whole(ctx); err != nil {
		return false, err
	} else if whole.Size() <= placeholderLimit {
		b, err := io.ReadAll(whole.Reader())
		if err != nil {
			return false, err
		}
		if placeholder(append(bytes.Clone(head), b...)) {
			return false, nil
		}
	}
	f.log.Warn("a message could be had in pieces only", "id", id.String())
	f.msg = message.Message{Summary: message.Summary{ID: id}, Assembled: true}
	if f.needs.Has(message.NeedHeaders) {
		f.msg.Header, f.msg.Have = message.NewHeader(head), message.NeedHeaders
	}
	f.msg.Body = message.NewBody(io.MultiReader(bytes.NewReader(head), text), int64(len(head))+text.Size(), f.spool)
	defer f.msg.Body.Release()
	delete(f.pending, uid)
	if !f.yield(source.Fetched{ID: id, Message: &f.msg}, nil) {
		f.ended = true
	}
	return true, nil
}
