package wire

import (
	"unicode/utf8"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// heads reads what goes before each message, and the summaries of a listing, by
// hand: the generated code takes several times as long and an allocation for
// every part. What isn't common is left to it: a method that returns false has
// read nothing that counts, and proto.Unmarshal is to read the whole. So both
// read the same (FuzzHeads). It is used for one frame or batch, whose messages
// mostly share their source and mailbox.
type heads struct {
	source, mailbox string // the last ones
}

// head is the memory of one message's head.
type head struct {
	event   pluginpb.Event
	begin   pluginpb.Begin
	id      pluginpb.ID
	summary pluginpb.Summary
	date    pluginpb.Time
}

// entry is the memory of one summary of a listing.
type entry struct {
	summary pluginpb.Summary
	id      pluginpb.ID
	date    pluginpb.Time
}

// field is one field of a message on the wire.
type field struct {
	number protowire.Number
	kind   protowire.Type
	n      uint64 // of a varint
	b      []byte // of what has a length
}

// cut takes the first field off b. Fields of fixed width are in no head.
func (f *field) cut(b []byte) (rest []byte, ok bool) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return nil, false
	}
	b = b[n:]
	*f = field{number: number, kind: kind}
	switch kind {
	case protowire.VarintType:
		f.n, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.b, n = protowire.ConsumeBytes(b)
	default:
		return nil, false
	}
	if n < 0 {
		return nil, false
	}
	return b[n:], true
}

// text returns the field's string; last is what such a field had before.
func (f *field) text(last string) (string, bool) {
	if string(f.b) == last {
		return last, true
	}
	return string(f.b), utf8.Valid(f.b)
}

// Fields by number and kind, as one number for switches.
const (
	number = protowire.Number(protowire.VarintType) << 16
	octets = protowire.Number(protowire.BytesType) << 16
)

func (f *field) key() protowire.Number { return f.number | protowire.Number(f.kind)<<16 }

// event reads a pluginpb.Event.
func (h *heads) event(b []byte) (*pluginpb.Event, bool) {
	if len(b) == 0 || b[0] != byte(protowire.EncodeTag(fieldBegin, protowire.BytesType)) {
		e := new(pluginpb.Event)
		return e, h.eventInto(b, e, nil)
	}
	m := new(head)
	return &m.event, h.eventInto(b, &m.event, m)
}

func (h *heads) eventInto(b []byte, e *pluginpb.Event, m *head) bool {
	var (
		f  field
		ok bool
	)
	for len(b) > 0 {
		if b, ok = f.cut(b); !ok {
			return false
		}
		switch f.key() {
		case octets | fieldBegin:
			if m == nil || e.Begin != nil || !h.begin(f.b, m) {
				return false
			}
			e.Begin = &m.begin
		case number | fieldBody:
			e.Body = uint32(f.n)
		case number | fieldEnd:
			e.End = f.n != 0
		case number | fieldLanes:
			e.Lanes = uint32(f.n)
		case number | fieldPull:
			e.Pull = uint32(f.n)
		case octets | fieldSum:
			e.Sha256 = append([]byte{}, f.b...)
		default:
			return false
		}
	}
	return true
}

func (h *heads) begin(b []byte, m *head) bool {
	p := &m.begin
	var (
		f  field
		ok bool
	)
	for len(b) > 0 {
		if b, ok = f.cut(b); !ok {
			return false
		}
		switch f.key() {
		case octets | 1:
			if p.Id != nil || !h.id(f.b, &m.id) {
				return false
			}
			p.Id = &m.id
		case octets | 2:
			if p.Summary != nil || !h.summary(f.b, &m.summary, nil, &m.date) {
				return false
			}
			p.Summary = &m.summary
		case number | 3:
			p.HasBody = f.n != 0
		case number | 4:
			p.BodySize = protowire.DecodeZigZag(f.n)
		case number | 5:
			p.Assembled = f.n != 0
		case octets | 6:
			if p.Record != nil {
				return false
			}
			p.Record = new(pluginpb.Record)
			if proto.Unmarshal(f.b, p.Record) != nil {
				return false
			}
		case number | 9:
			p.Summed = f.n != 0
		default:
			return false
		}
	}
	return true
}

func (h *heads) id(b []byte, p *pluginpb.ID) bool {
	var (
		f  field
		ok bool
	)
	for len(b) > 0 {
		if b, ok = f.cut(b); !ok {
			return false
		}
		switch f.key() {
		case octets | 1:
			if p.Source, ok = f.text(h.source); !ok {
				return false
			}
			h.source = p.Source
		case octets | 2:
			if p.Mailbox, ok = f.text(h.mailbox); !ok {
				return false
			}
			h.mailbox = p.Mailbox
		case number | 3:
			p.UidValidity = uint32(f.n)
		case number | 4:
			p.Uid = uint32(f.n)
		case octets | 5:
			p.Uidl = append([]byte(nil), f.b...)
		default:
			return false
		}
	}
	return true
}

// summary reads a pluginpb.Summary, with its id where there is memory for it.
func (h *heads) summary(b []byte, p *pluginpb.Summary, id *pluginpb.ID, at *pluginpb.Time) bool {
	var (
		f  field
		ok bool
	)
	for len(b) > 0 {
		if b, ok = f.cut(b); !ok {
			return false
		}
		switch f.key() {
		case octets | 1:
			p.ObjectId, ok = f.text("")
		case number | 2:
			p.SequenceNumber = uint32(f.n)
		case number | 3:
			p.Have = uint32(f.n)
		case number | 4:
			p.Size = int64(f.n)
		case octets | 5:
			ok = p.InternalDate == nil && date(f.b, at)
			p.InternalDate = at
		case octets | 6:
			p.Flags, ok = f.add(p.Flags)
		case octets | 7:
			p.Keywords, ok = f.add(p.Keywords)
		case octets | 8:
			p.Labels, ok = f.add(p.Labels)
		case octets | 10:
			p.Header = append(make([]byte, 0, len(f.b)), f.b...)
		case octets | 14:
			ok = p.Id == nil && id != nil && h.id(f.b, id)
			p.Id = id
		case number | 15:
			p.Fails = uint32(f.n)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return true
}

func (f *field) add(to []string) ([]string, bool) {
	s, ok := f.text("")
	return append(to, s), ok
}

func date(b []byte, p *pluginpb.Time) bool {
	var (
		f  field
		ok bool
	)
	for len(b) > 0 {
		if b, ok = f.cut(b); !ok || f.kind != protowire.VarintType {
			return false
		}
		switch f.number {
		case 1:
			p.Seconds = int64(f.n)
		case 2:
			p.Nanos = int32(f.n)
		case 3:
			p.Offset = int32(f.n)
		default:
			return false
		}
	}
	return true
}

// batch reads a pluginpb.SummaryBatch.
func (h *heads) batch(b []byte, p *pluginpb.SummaryBatch) bool {
	var (
		f  field
		ok bool
	)
	for len(b) > 0 {
		if b, ok = f.cut(b); !ok {
			return false
		}
		switch f.key() {
		case octets | 1:
			if p.State != nil {
				return false
			}
			p.State = new(pluginpb.MailboxState)
			if proto.Unmarshal(f.b, p.State) != nil {
				return false
			}
		case octets | 2:
			m := new(entry)
			if !h.summary(f.b, &m.summary, &m.id, &m.date) {
				return false
			}
			p.Summaries = append(p.Summaries, &m.summary)
		case number | 4:
			p.Lanes = uint32(f.n)
		default:
			return false
		}
	}
	return true
}
