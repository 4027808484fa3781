package wire

import (
	"unicode/utf8"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// appendBegin is proto.MarshalAppend for the head of a message, and gives the
// same octets for a part of the price. What isn't common is left to that.
func appendBegin(b []byte, p *pluginpb.Begin) ([]byte, error) {
	if !plain(p.Summary) || !plainID(p.Id) || len(p.Instead) > 0 || p.Verdict != 0 {
		return proto.MarshalOptions{}.MarshalAppend(b, p)
	}
	if p.Id != nil {
		b = appendSized(b, 1, sizeID(p.Id))
		b = appendID(b, p.Id)
	}
	if p.Summary != nil {
		b = appendSized(b, 2, sizeSummary(p.Summary))
		b = appendSummary(b, p.Summary)
	}
	b = appendBool(b, 3, p.HasBody)
	b = appendNumber(b, 4, protowire.EncodeZigZag(p.BodySize))
	b = appendBool(b, 5, p.Assembled)
	if p.Record != nil {
		b = appendSized(b, 6, proto.Size(p.Record))
		var err error
		if b, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b, p.Record); err != nil {
			return nil, err
		}
	}
	return appendBool(b, 9, p.Summed), nil
}

// appendBatch is proto.MarshalAppend for the summaries of a listing.
func appendBatch(b []byte, p *pluginpb.SummaryBatch) ([]byte, error) {
	for _, s := range p.Summaries {
		if s == nil || !plain(s) {
			return proto.MarshalOptions{}.MarshalAppend(b, p)
		}
	}
	if p.Error != nil {
		return proto.MarshalOptions{}.MarshalAppend(b, p)
	}
	if p.State != nil {
		b = appendSized(b, 1, proto.Size(p.State))
		var err error
		if b, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b, p.State); err != nil {
			return nil, err
		}
	}
	for _, s := range p.Summaries {
		b = appendSized(b, 2, sizeSummary(s))
		b = appendSummary(b, s)
	}
	return appendNumber(b, 4, uint64(p.Lanes)), nil
}

// plain reports whether a summary has nothing but what appendSummary writes.
func plain(p *pluginpb.Summary) bool {
	if p == nil {
		return true
	}
	if p.Gmail != nil || p.Structure != nil || len(p.Extra) > 0 || len(p.Vars) > 0 || !plainID(p.Id) {
		return false
	}
	for _, list := range [...][]string{p.Flags, p.Keywords, p.Labels} {
		for _, s := range list {
			if !utf8.ValidString(s) {
				return false
			}
		}
	}
	return utf8.ValidString(p.ObjectId) && utf8.ValidString(p.Place) && utf8.ValidString(p.LandsIn)
}

// plainID reports whether an id can be written: what isn't UTF-8 can't, and
// proto.Marshal says so.
func plainID(p *pluginpb.ID) bool {
	return p == nil || utf8.ValidString(p.Source) && utf8.ValidString(p.Mailbox) && utf8.ValidString(p.HeaderHash)
}

func sizeID(p *pluginpb.ID) int {
	return sizeOctets(1, len(p.Source)) + sizeOctets(2, len(p.Mailbox)) + sizeNumber(3, uint64(p.UidValidity)) + sizeNumber(4, uint64(p.Uid)) +
		sizeOctets(5, len(p.Uidl)) + sizeOctets(6, len(p.HeaderHash)) + sizeNumber(7, uint64(p.Ordinal))
}

func appendID(b []byte, p *pluginpb.ID) []byte {
	b = appendText(b, 1, p.Source)
	b = appendText(b, 2, p.Mailbox)
	b = appendNumber(b, 3, uint64(p.UidValidity))
	b = appendNumber(b, 4, uint64(p.Uid))
	if len(p.Uidl) > 0 {
		b = appendSized(b, 5, len(p.Uidl))
		b = append(b, p.Uidl...)
	}
	b = appendText(b, 6, p.HeaderHash)
	return appendNumber(b, 7, uint64(p.Ordinal))
}

func sizeTime(p *pluginpb.Time) int {
	return sizeNumber(1, uint64(p.Seconds)) + sizeNumber(2, uint64(int64(p.Nanos))) + sizeNumber(3, uint64(int64(p.Offset)))
}

func sizeSummary(p *pluginpb.Summary) int {
	n := sizeOctets(1, len(p.ObjectId)) + sizeNumber(2, uint64(p.SequenceNumber)) + sizeNumber(3, uint64(p.Have)) + sizeNumber(4, uint64(p.Size)) +
		sizeTexts(6, p.Flags) + sizeTexts(7, p.Keywords) + sizeTexts(8, p.Labels) +
		sizeNumber(15, uint64(p.Fails)) + sizeOctets(16, len(p.Place)) + sizeOctets(17, len(p.LandsIn))
	if p.InternalDate != nil {
		n += sizeSized(5, sizeTime(p.InternalDate))
	}
	if p.Header != nil {
		n += sizeSized(10, len(p.Header))
	}
	if p.Id != nil {
		n += sizeSized(14, sizeID(p.Id))
	}
	return n
}

func appendSummary(b []byte, p *pluginpb.Summary) []byte {
	b = appendText(b, 1, p.ObjectId)
	b = appendNumber(b, 2, uint64(p.SequenceNumber))
	b = appendNumber(b, 3, uint64(p.Have))
	b = appendNumber(b, 4, uint64(p.Size))
	if t := p.InternalDate; t != nil {
		b = appendSized(b, 5, sizeTime(t))
		b = appendNumber(b, 1, uint64(t.Seconds))
		b = appendNumber(b, 2, uint64(int64(t.Nanos)))
		b = appendNumber(b, 3, uint64(int64(t.Offset)))
	}
	b = appendTexts(b, 6, p.Flags)
	b = appendTexts(b, 7, p.Keywords)
	b = appendTexts(b, 8, p.Labels)
	if p.Header != nil {
		b = appendSized(b, 10, len(p.Header))
		b = append(b, p.Header...)
	}
	if p.Id != nil {
		b = appendSized(b, 14, sizeID(p.Id))
		b = appendID(b, p.Id)
	}
	b = appendNumber(b, 15, uint64(p.Fails))
	b = appendText(b, 16, p.Place)
	return appendText(b, 17, p.LandsIn)
}

// Fields, and how many octets they take; a zero isn't written (proto3).

func sizeSized(n protowire.Number, octets int) int {
	return protowire.SizeTag(n) + protowire.SizeBytes(octets)
}

func sizeOctets(n protowire.Number, octets int) int {
	if octets == 0 {
		return 0
	}
	return sizeSized(n, octets)
}

func sizeNumber(n protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(n) + protowire.SizeVarint(v)
}

func sizeTexts(n protowire.Number, list []string) (size int) {
	for _, s := range list {
		size += sizeSized(n, len(s))
	}
	return size
}

// appendSized begins a field of so many octets, which follow.
func appendSized(b []byte, n protowire.Number, octets int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.BytesType), uint64(octets))
}

func appendText(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return append(appendSized(b, n, len(s)), s...)
}

func appendTexts(b []byte, n protowire.Number, list []string) []byte {
	for _, s := range list {
		b = append(appendSized(b, n, len(s)), s...)
	}
	return b
}

func appendNumber(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func appendBool(b []byte, n protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendNumber(b, n, 1)
}
