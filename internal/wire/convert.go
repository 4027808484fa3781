package wire

import (
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/message"
)

// IDToPB converts an id. A mailbox equal to home is left empty: within one
// call most ids are of one mailbox.
func IDToPB(id message.ID, home string) *pluginpb.ID {
	if id.Mailbox == home {
		id.Mailbox = ""
	}
	out := &pluginpb.ID{
		Source: id.Source, Mailbox: id.Mailbox,
		UidValidity: id.UIDValidity, Uid: id.UID,
		HeaderHash: id.HeaderHash, Ordinal: id.Ordinal,
	}
	if id.UIDL != "" {
		out.Uidl = []byte(id.UIDL)
	}
	return out
}

// IDFromPB converts an id. An empty mailbox stands for home.
func IDFromPB(p *pluginpb.ID, home string) message.ID {
	id := message.ID{
		Source: p.GetSource(), Mailbox: p.GetMailbox(),
		UIDValidity: p.GetUidValidity(), UID: p.GetUid(), UIDL: string(p.GetUidl()),
		HeaderHash: p.GetHeaderHash(), Ordinal: p.GetOrdinal(),
	}
	if id.Mailbox == "" {
		id.Mailbox = home
	}
	return id
}

func idsToPB(ids []message.ID, home string) *pluginpb.IDBatch {
	out := &pluginpb.IDBatch{Ids: make([]*pluginpb.ID, len(ids))}
	for i, id := range ids {
		out.Ids[i] = IDToPB(id, home)
	}
	return out
}

func idsFromPB(p *pluginpb.IDBatch, home string) []message.ID {
	out := make([]message.ID, len(p.GetIds()))
	for i, id := range p.GetIds() {
		out[i] = IDFromPB(id, home)
	}
	return out
}

// IDsToPB converts a batch of ids of the mailbox home.
func IDsToPB(ids []message.ID, home string) *pluginpb.IDBatch { return idsToPB(ids, home) }

// ConditionsToPB converts the conditions of a listing.
func ConditionsToPB(in []Condition) []*pluginpb.Condition {
	out := make([]*pluginpb.Condition, len(in))
	for i, c := range in {
		out[i] = &pluginpb.Condition{Field: c.Field, Op: c.Op, Time: timeToPB(c.Time), Size: c.Size, Flag: valid(c.Flag)}
	}
	return out
}

func conditionsFromPB(in []*pluginpb.Condition) []Condition {
	if len(in) == 0 {
		return nil
	}
	out := make([]Condition, len(in))
	for i, c := range in {
		out[i] = Condition{Field: c.GetField(), Op: c.GetOp(), Time: timeFromPB(c.GetTime()), Size: c.GetSize(), Flag: c.GetFlag()}
	}
	return out
}

// StateToPB converts a mailbox's state.
func StateToPB(s message.MailboxState) *pluginpb.MailboxState {
	return &pluginpb.MailboxState{
		Messages: s.Messages, Bytes: s.Bytes, UidValidity: s.UIDValidity,
		Content: valid(s.Content), Flags: valid(s.Flags), BlindSpots: valids(s.BlindSpots),
	}
}

// StateFromPB converts a mailbox's state.
func StateFromPB(p *pluginpb.MailboxState) message.MailboxState {
	return message.MailboxState{
		Messages: p.GetMessages(), Bytes: p.GetBytes(), UIDValidity: p.GetUidValidity(),
		Content: p.GetContent(), Flags: p.GetFlags(), BlindSpots: p.GetBlindSpots(),
	}
}

// MailboxToPB converts a mailbox.
func MailboxToPB(m message.Mailbox) *pluginpb.Mailbox {
	return &pluginpb.Mailbox{
		Name: m.Name, SpecialUse: valids(m.SpecialUse), Selectable: m.Selectable,
		State: StateToPB(m.State), Within: valid(m.Within), Overlaps: m.Overlaps,
	}
}

// MailboxFromPB converts a mailbox.
func MailboxFromPB(p *pluginpb.Mailbox) message.Mailbox {
	return message.Mailbox{
		Name: p.GetName(), SpecialUse: p.GetSpecialUse(), Selectable: p.GetSelectable(),
		State: StateFromPB(p.GetState()), Within: p.GetWithin(), Overlaps: p.GetOverlaps(),
	}
}

// SummaryToPB converts everything of a summary but its id.
func SummaryToPB(s *message.Summary) *pluginpb.Summary {
	out := &pluginpb.Summary{
		ObjectId: valid(s.ObjectID), Place: valid(s.Place), SequenceNumber: s.SequenceNumber, Have: uint32(s.Have), Fails: uint32(max(0, s.Fails)),
		Size: s.Size, InternalDate: timeToPB(s.InternalDate),
		Flags: valids(s.Flags), Keywords: valids(s.Keywords), Labels: valids(s.Labels),
		Structure: partToPB(s.Structure), Extra: validMap(s.Extra), Vars: validMap(s.Vars), LandsIn: valid(s.LandsIn),
	}
	if g := s.Gmail; g != nil {
		out.Gmail = &pluginpb.Gmail{MessageId: g.MessageID, ThreadId: g.ThreadID, Labels: valids(g.Labels)}
	}
	if s.Header != nil {
		if out.Header = s.Header.Raw(); out.Header == nil {
			out.Header = []byte{}
		}
	}
	return out
}

// SummaryFromPB converts a summary. It keeps p's memory.
func SummaryFromPB(p *pluginpb.Summary, id message.ID) message.Summary {
	s := message.Summary{
		ID: id, ObjectID: p.GetObjectId(), Place: p.GetPlace(), SequenceNumber: p.GetSequenceNumber(), Fails: int(p.GetFails()),
		Have: message.Needs(p.GetHave()), Size: p.GetSize(), InternalDate: timeFromPB(p.GetInternalDate()),
		Flags: p.GetFlags(), Keywords: p.GetKeywords(), Labels: p.GetLabels(),
		Structure: partFromPB(p.GetStructure()), Extra: p.GetExtra(), Vars: p.GetVars(), LandsIn: p.GetLandsIn(),
	}
	if g := p.GetGmail(); g != nil {
		s.Gmail = &message.Gmail{MessageID: g.GetMessageId(), ThreadID: g.GetThreadId(), Labels: g.GetLabels()}
	}
	if p != nil && p.Header != nil {
		s.Header = message.NewHeader(p.Header)
	}
	return s
}

func timeToPB(t time.Time) *pluginpb.Time {
	if t.IsZero() {
		return nil
	}
	_, offset := t.Zone()
	return &pluginpb.Time{Seconds: t.Unix(), Nanos: int32(t.Nanosecond()), Offset: int32(offset)}
}

func timeFromPB(p *pluginpb.Time) time.Time {
	if p == nil {
		return time.Time{}
	}
	t := time.Unix(p.GetSeconds(), int64(p.GetNanos()))
	if p.GetOffset() == 0 {
		return t.UTC()
	}
	return t.In(time.FixedZone("", int(p.GetOffset())))
}

// maxPartDepth bounds the nesting of a structure: what is deeper is left out,
// so that a hostile mail can't exhaust a stack on either side.
const maxPartDepth = 100

func partToPB(p *message.Part) *pluginpb.Part { return partDown(p, maxPartDepth) }

func partDown(p *message.Part, left int) *pluginpb.Part {
	if p == nil || left == 0 {
		return nil
	}
	out := &pluginpb.Part{
		Path: p.Path, MediaType: valid(p.MediaType), Params: validMap(p.Params), Name: valid(p.Name),
		Disposition: valid(p.Disposition), ContentId: valid(p.ContentID), ContentLocation: valid(p.ContentLocation),
		Encoding: valid(p.Encoding), EncodedSize: p.EncodedSize, Size: p.Size, Sha256: p.SHA256, Inline: p.Inline,
	}
	for _, c := range p.Children {
		if c := partDown(c, left-1); c != nil {
			out.Children = append(out.Children, c)
		}
	}
	return out
}

func partFromPB(p *pluginpb.Part) *message.Part {
	if p == nil {
		return nil
	}
	out := &message.Part{
		Path: p.GetPath(), MediaType: p.GetMediaType(), Params: p.GetParams(), Name: p.GetName(),
		Disposition: p.GetDisposition(), ContentID: p.GetContentId(), ContentLocation: p.GetContentLocation(),
		Encoding: p.GetEncoding(), EncodedSize: p.GetEncodedSize(), Size: p.GetSize(), SHA256: p.GetSha256(), Inline: p.GetInline(),
	}
	for _, c := range p.GetChildren() {
		out.Children = append(out.Children, partFromPB(c))
	}
	return out
}

func recordToPB(r *message.Record) *pluginpb.Record {
	if r == nil {
		return nil
	}
	return &pluginpb.Record{
		Octets: r.Octets, Sha256: r.SHA256, Files: validMap(r.Files),
		Changed: valids(r.Changed), Problems: valids(r.Problems), Replaces: r.Replaces,
	}
}

func recordFromPB(p *pluginpb.Record) *message.Record {
	if p == nil {
		return nil
	}
	return &message.Record{
		Octets: p.GetOctets(), SHA256: p.GetSha256(), Files: p.GetFiles(),
		Changed: p.GetChanged(), Problems: p.GetProblems(), Replaces: p.GetReplaces(),
	}
}

// valid returns s as UTF-8: protobuf refuses a whole message for one bad
// octet in a string, and one bad flag must not cost a mail (I6).
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func valids(in []string) []string {
	for i, s := range in {
		if v := valid(s); v != s {
			out := append([]string(nil), in...)
			for j := i; j < len(out); j++ {
				out[j] = valid(out[j])
			}
			return out
		}
	}
	return in
}

func validMap(in map[string]string) map[string]string {
	for k, v := range in {
		if valid(k) != k || valid(v) != v {
			out := make(map[string]string, len(in))
			for k, v := range in {
				out[valid(k)] = valid(v)
			}
			return out
		}
	}
	return in
}
