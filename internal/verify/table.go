package verify

import (
	"context"
	"fmt"
	"hash/maphash"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/output"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/message"
)

// table is every message that some place knows of. Ids are taken apart into
// mailbox and number, so that one takes few octets.
type table struct {
	boxes []*box
	named map[boxKey]int32
	items []item

	former map[message.ID]int32 // ids that messages were exported under and have no more
	// The ids that manifests and indexes have, where the server has given
	// their messages others since.
	exported map[int32]message.ID
}

type boxKey struct {
	source, mailbox string
	validity        uint32
}

// box is a mailbox under one UIDVALIDITY.
type box struct {
	boxKey
	number ledger.Box // 0: the ledger has no message of it
	uids   map[uint32]int32
	texts  map[textID]int32 // of string ids
}

type textID struct {
	uidl, hash string
	ordinal    uint32
}

// item is one message.
type item struct {
	box      int32
	uid      uint32
	text     *textID // of a string id
	octets   int64   // as the ledger has it; -1 unknown
	sum      [32]byte
	head     uint64 // hash of what the header of the EML says; 0: not read
	line     uint64 // the same of the index's line
	known    bool   // to the ledger
	hashed   bool   // sum is known
	vanished bool
	changed  bool // by a stage: its files aren't the octets that the server sent
	removed  bool // on the server, as the file wants
	listed   bool // by the server, now
}

func newTable() *table { return &table{named: map[boxKey]int32{}, exported: map[int32]message.ID{}} }

// also gives a message a second id, under which it was exported.
func (t *table) also(id message.ID, n int32) {
	if t.former == nil {
		t.former = map[message.ID]int32{}
	}
	t.former[id] = n
	t.exported[n] = id
}

// find returns the number of a message, -1 when nobody told of it.
func (t *table) find(id message.ID) int32 {
	if n := t.now(id); n >= 0 {
		return n
	}
	if n, ok := t.former[id]; ok {
		return n
	}
	return -1
}

// now returns the number of the message that has the id now.
func (t *table) now(id message.ID) int32 {
	b, ok := t.named[boxKey{id.Source, id.Mailbox, id.UIDValidity}]
	if !ok {
		return -1
	}
	var n int32
	if id.UID != 0 {
		n, ok = t.boxes[b].uids[id.UID]
	} else {
		n, ok = t.boxes[b].texts[textID{id.UIDL, id.HeaderHash, id.Ordinal}]
	}
	if !ok {
		return -1
	}
	return n
}

// add returns the number of a message, a new one when nobody told of it.
func (t *table) add(id message.ID) int32 {
	if n := t.find(id); n >= 0 {
		return n
	}
	key := boxKey{id.Source, id.Mailbox, id.UIDValidity}
	b, ok := t.named[key]
	if !ok {
		b = int32(len(t.boxes))
		t.named[key] = b
		t.boxes = append(t.boxes, &box{boxKey: key, uids: map[uint32]int32{}, texts: map[textID]int32{}})
	}
	n := int32(len(t.items))
	it := item{box: b, uid: id.UID, octets: -1}
	if id.UID != 0 {
		t.boxes[b].uids[id.UID] = n
	} else {
		it.text = &textID{id.UIDL, id.HeaderHash, id.Ordinal}
		t.boxes[b].texts[*it.text] = n
	}
	t.items = append(t.items, it)
	return n
}

// recorded returns the id that manifests and indexes have of a message.
func (t *table) recorded(n int32) message.ID {
	if id, ok := t.exported[n]; ok {
		return id
	}
	return t.id(n)
}

func (t *table) id(n int32) message.ID {
	it := &t.items[n]
	b := t.boxes[it.box]
	id := message.ID{Source: b.source, Mailbox: b.mailbox, UIDValidity: b.validity, UID: it.uid}
	if it.text != nil {
		id.UIDL, id.HeaderHash, id.Ordinal = it.text.uidl, it.text.hash, it.text.ordinal
	}
	return id
}

// row is what one sink has of a message.
type row struct {
	told    uint64 // hash of the path that the ledger has; 0: none
	listed  uint64 // the same of the manifest
	offset  int64  // of the manifest's row
	size    int64  // as the manifest has it
	sum     [32]byte
	written bool // the ledger says so
	stale   bool // the ledger says that its record is to be sent again
	row     bool // the manifest has one
	seen    bool // the file is there
	bad     bool // something was said of the file
	line    bool // the index has one
}

// kept is what one sink keeps.
type kept struct {
	plan   *plan.Sink
	target ledger.Target
	files  output.Files      // of a sink of files
	index  *output.Index     // in a bucket
	state  output.IndexState // of it
	rows   []row             // by item
	places map[uint64]int32  // hash of a path -> item
	seed   maphash.Seed
	result SinkResult

	eml, msg bool                    // all its receipts are such files
	fail     context.CancelCauseFunc // ends the reading of its files

	gone   bool // the target isn't there: nothing more is said of it
	bare   bool // it has no manifest
	exact  bool // its files are the octets that the server sent
	broken []brokenLine
}

// brokenLine is a line of a manifest or an index that can't be read.
type brokenLine struct {
	number int
	why    string
}

func newKept(s *plan.Sink, t ledger.Target) *kept {
	return &kept{
		plan: s, target: t, places: map[uint64]int32{}, seed: maphash.MakeSeed(), eml: true, msg: true,
		result: SinkResult{Sink: s.Name, Target: s.Prepared.Target, Pending: t.Dirty},
	}
}

// open opens what the sink has, to be read.
func (k *kept) open(ctx context.Context, store func() (string, error)) (err error) {
	switch {
	case !k.plan.Prepared.Record:
		k.files, err = output.Open(ctx, k.plan.Prepared.Target, k.plan.Address, store)
	case k.plan.Address != "":
		k.index, err = output.OpenIndex(ctx, k.plan.Address, store)
	}
	if err != nil {
		return fmt.Errorf("sink %s: %w", k.plan.Name, err)
	}
	return nil
}

func (k *kept) close() {
	if k.files != nil {
		k.files.Close()
	}
	if k.index != nil {
		k.index.Close()
	}
}

// row returns the sink's row of an item. The pointer is valid until the next
// call.
func (k *kept) row(n int32) *row {
	if int(n) >= len(k.rows) {
		k.rows = append(k.rows, make([]row, int(n)+1-len(k.rows))...)
	}
	return &k.rows[n]
}

// hash returns what stands for a path; never 0.
func (k *kept) hash(path string) uint64 { return maphash.String(k.seed, path) | 1 }
