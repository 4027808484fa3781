package wire

import (
	"bytes"
	"testing"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// someHeads are heads of messages: common ones, and those that are left to the
// generated code.
func someHeads() map[string]*pluginpb.Begin {
	at := &pluginpb.Time{Seconds: -5, Nanos: 999_999_999, Offset: -3600}
	return map[string]*pluginpb.Begin{
		"nothing":           {},
		"empty parts":       {Id: &pluginpb.ID{}, Summary: &pluginpb.Summary{InternalDate: &pluginpb.Time{}, Header: []byte{}}, Record: &pluginpb.Record{}},
		"from a source":     {Id: &pluginpb.ID{UidValidity: 7, Uid: 1 << 31}, Summary: &pluginpb.Summary{Have: 3, Size: 1 << 40, InternalDate: at}, HasBody: true, BodySize: 4096},
		"to a sink":         {Id: &pluginpb.ID{Source: "it", Mailbox: "Bücher", UidValidity: 7, Uid: 9}, Summary: &pluginpb.Summary{Header: []byte("Subject: x\r\n\r\n")}, HasBody: true, BodySize: -1, Summed: true},
		"uidl":              {Id: &pluginpb.ID{Uidl: []byte{0xff, 0}, HeaderHash: "ab", Ordinal: 3}},
		"flags":             {Summary: &pluginpb.Summary{Flags: []string{`\Seen`, ""}, Keywords: []string{"$Junk"}, Labels: []string{"a", "b"}, ObjectId: "o", Place: "p", LandsIn: "l", Fails: 2, SequenceNumber: 5}},
		"a record":          {Record: &pluginpb.Record{Octets: 5, Sha256: "00", Files: map[string]string{"eml": "a.eml"}}, Assembled: true},
		"Gmail":             {Summary: &pluginpb.Summary{Gmail: &pluginpb.Gmail{MessageId: 1 << 63}}},
		"structure":         {Summary: &pluginpb.Summary{Structure: &pluginpb.Part{Path: "1"}}},
		"extra":             {Summary: &pluginpb.Summary{Extra: map[string]string{"X": "y"}}},
		"vars":              {Summary: &pluginpb.Summary{Vars: map[string]string{"team": "a"}}},
		"instead":           {Instead: []byte("what came")},
		"a verdict":         {Verdict: 2},
		"negative":          {Summary: &pluginpb.Summary{Size: -1}},
		"summary has an id": {Summary: &pluginpb.Summary{Id: &pluginpb.ID{Uid: 4}}},
	}
}

// TestHeadsAreProtobuf: what is written by hand is what generated code writes,
// and is read as generated code reads it.
func TestHeadsAreProtobuf(t *testing.T) {
	t.Parallel()
	for name, begin := range someHeads() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, err := proto.Marshal(begin)
			if err != nil {
				t.Fatal(err)
			}
			got, err := appendBegin(nil, begin)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%x, %v\nwant %x", got, err, want)
			}
			// What went before in the same buffer stays.
			if got, err = appendBegin([]byte("before"), begin); err != nil || string(got) != "before"+string(want) {
				t.Errorf("%x, %v", got, err)
			}
			event, err := proto.Marshal(&pluginpb.Event{Begin: begin, Body: 5, End: true, Sha256: []byte("sum")})
			if err != nil {
				t.Fatal(err)
			}
			readsAlike(t, event)
		})
	}
}

// TestListingsAreProtobuf is that for the summaries of a listing, by way of
// the codec.
func TestListingsAreProtobuf(t *testing.T) {
	t.Parallel()
	state := &pluginpb.MailboxState{Messages: 3, UidValidity: 7}
	plain := &pluginpb.Summary{Id: &pluginpb.ID{Uid: 1, UidValidity: 7}, Have: 1, Header: []byte("Subject: x\r\n\r\n")}
	for name, b := range map[string]*pluginpb.SummaryBatch{
		"nothing":      {},
		"a state":      {State: state, Lanes: 2},
		"summaries":    {State: state, Summaries: []*pluginpb.Summary{plain, {Id: &pluginpb.ID{Uid: 2}, Fails: 1}, {}}},
		"a structure":  {Summaries: []*pluginpb.Summary{plain, {Structure: &pluginpb.Part{Path: "1"}}}},
		"an error":     {Summaries: []*pluginpb.Summary{plain}, Error: &pluginpb.Error{Text: "no"}},
		"a large page": {Summaries: []*pluginpb.Summary{{Header: make([]byte, 2*MaxFrame)}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, err := proto.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			c := newCodec(NewMemory(NewPool(), nil))
			data, err := c.Marshal(b)
			if err != nil || !bytes.Equal(data.Materialize(), want) {
				t.Fatalf("%x, %v\nwant %x", data.Materialize(), err, want)
			}
			var got pluginpb.SummaryBatch
			if err := c.Unmarshal(cut(want, 100), &got); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(b, &got) {
				t.Errorf("it was read as another, with %d summaries", len(got.Summaries))
			}
		})
	}
}

// TestBadText: what isn't UTF-8 is refused, as generated code refuses it.
func TestBadText(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]*pluginpb.Begin{
		"mailbox": {Id: &pluginpb.ID{Mailbox: "\xff"}},
		"hash":    {Id: &pluginpb.ID{HeaderHash: "\xff"}},
		"flag":    {Summary: &pluginpb.Summary{Flags: []string{"\xff"}}},
		"place":   {Summary: &pluginpb.Summary{Place: "\xff"}},
		"record":  {Record: &pluginpb.Record{Sha256: "\xff"}},
	} {
		if _, err := appendBegin(nil, begin); err == nil {
			t.Errorf("%s: it was written", name)
		}
	}
	if _, err := newCodec(NewMemory(NewPool(), nil)).Marshal(&pluginpb.SummaryBatch{Summaries: []*pluginpb.Summary{{Keywords: []string{"\xff"}}}}); err == nil {
		t.Error("a keyword in a listing was written")
	}
	id := appendText(nil, 2, "\xff")
	begin := append(appendSized(nil, 1, len(id)), id...)
	event := append(appendSized(nil, fieldBegin, len(begin)), begin...)
	if err := (&Inbound{}).unmarshal(mem.BufferSlice{mem.SliceBuffer(append(appendSized(nil, fieldEvents, len(event)), event...))}, NewMemory(NewPool(), nil)); err == nil {
		t.Error("a mailbox that isn't UTF-8 was read")
	}
}

// readsAlike holds what is read by hand against what generated code reads.
func readsAlike(t *testing.T, b []byte) {
	t.Helper()
	var h heads
	e, read := h.event(b)
	want := new(pluginpb.Event)
	err := proto.Unmarshal(b, want)
	if read && err != nil {
		t.Errorf("%x was read, which is none: %v", b, err)
	} else if read && !proto.Equal(e, want) {
		t.Errorf("%x was read as\n%v, not as\n%v", b, e, want)
	}
	batch, listing := new(pluginpb.SummaryBatch), new(pluginpb.SummaryBatch)
	read, err = h.batch(b, batch), proto.Unmarshal(b, listing)
	if read && err != nil {
		t.Errorf("%x was read as a listing, which it isn't: %v", b, err)
	} else if read && !proto.Equal(batch, listing) {
		t.Errorf("%x was read as\n%v, not as\n%v", b, batch, listing)
	}
}

// FuzzHeads: whatever the other side sends is read as generated code reads it,
// and written as that writes it.
func FuzzHeads(f *testing.F) {
	for _, begin := range someHeads() {
		b, err := proto.Marshal(&pluginpb.Event{Begin: begin, Body: 5, End: true})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		s, err := proto.Marshal(&pluginpb.SummaryBatch{Summaries: []*pluginpb.Summary{begin.Summary}, Lanes: 3})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s)
	}
	f.Add(protowire.AppendTag(nil, fieldBegin, protowire.StartGroupType))
	f.Fuzz(func(t *testing.T, b []byte) {
		readsAlike(t, b)
		e, batch := new(pluginpb.Event), new(pluginpb.SummaryBatch)
		if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, e) == nil && e.Begin != nil {
			got, err := appendBegin(nil, e.Begin)
			back := new(pluginpb.Begin)
			if err != nil || proto.Unmarshal(got, back) != nil || !proto.Equal(back, e.Begin) || len(got) != proto.Size(e.Begin) {
				t.Errorf("%v was written as %x: %v", e.Begin, got, err)
			}
		}
		if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, batch) == nil {
			got, err := appendBatch(nil, batch)
			back := new(pluginpb.SummaryBatch)
			if err != nil || proto.Unmarshal(got, back) != nil || !proto.Equal(back, batch) || len(got) != proto.Size(batch) {
				t.Errorf("%v was written as %x: %v", batch, got, err)
			}
		}
	})
}

func BenchmarkHeads(b *testing.B) {
	begin := someHeads()["to a sink"]
	event, err := proto.Marshal(&pluginpb.Event{Begin: begin, Body: 4096, End: true})
	if err != nil {
		b.Fatal(err)
	}
	var buf []byte
	for name, f := range map[string]func() error{
		"write":            func() (err error) { buf, err = appendBegin(buf[:0], begin); return err },
		"write, generated": func() (err error) { buf, err = proto.MarshalOptions{}.MarshalAppend(buf[:0], begin); return err },
		"read": func() error {
			var h heads
			h.source, h.mailbox = begin.Id.Source, begin.Id.Mailbox
			_, ok := h.event(event)
			if !ok {
				b.Error("it wasn't read by hand")
			}
			return nil
		},
		"read, generated": func() error { return proto.Unmarshal(event, new(pluginpb.Event)) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
