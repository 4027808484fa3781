package popsource

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"sort"
	"strconv"

	"github.com/mailhaul/pipeline/pkg/message"
)

// inbox is the name of the one mailbox that a POP3 server has. With a name,
// file names have a level for it, as those of an IMAP server's INBOX.
const inbox = "INBOX"

// drop is what is in the maildrop as one session sees it: numbers, sizes and
// unique ids, and nothing else of the messages (I5). It doesn't change once
// the messages are identified, and is then shared by the sessions that see
// the same.
type drop struct {
	count, octets int64 // STAT; -1: not said

	nums  []uint32 // ascending
	sizes []int64  // LIST; -1: not said
	arena []byte   // the unique ids, one behind the other
	ends  []uint32 // where each ends in arena

	order []uint32 // indices of the strong ids, by unique id
	// weak are the messages whose unique id is missing, doubled or no unique
	// id (RFC 1939 §7): index -> what tells them apart. nil before they are
	// identified.
	weak       map[int]mark
	byMark     map[weakKey]int
	weakOnes   []uint32
	identified bool
	print      [sha256.Size]byte // of all that the server said
}

// mark tells weak messages apart.
type mark struct {
	hash    [sha256.Size]byte
	ordinal uint32
}

// weakKey is the identity of a weak message.
type weakKey struct {
	uidl string
	mark
}

func (d *drop) len() int { return len(d.nums) }

// uidl returns the unique id as the server has it; empty when it has none.
func (d *drop) uidl(i int) string { return string(d.rawUIDL(i)) }

func (d *drop) rawUIDL(i int) []byte {
	from := uint32(0)
	if i > 0 {
		from = d.ends[i-1]
	}
	return d.arena[from:d.ends[i]]
}

// id returns the identity of a message. The drop is identified.
func (d *drop) id(i int) message.ID {
	m, weak := d.weak[i]
	if !weak {
		return message.ID{Mailbox: inbox, UIDL: d.uidl(i)}
	}
	return message.ID{Mailbox: inbox, UIDL: d.uidl(i), HeaderHash: hex.EncodeToString(m.hash[:]), Ordinal: m.ordinal}
}

// find returns the index of a message, -1 when it isn't there.
func (d *drop) find(id message.ID) int {
	if id.HeaderHash == "" {
		at := sort.Search(len(d.order), func(n int) bool { return string(d.rawUIDL(int(d.order[n]))) >= id.UIDL })
		if at < len(d.order) && string(d.rawUIDL(int(d.order[at]))) == id.UIDL {
			return int(d.order[at])
		}
		return -1
	}
	k := weakKey{uidl: id.UIDL, mark: mark{ordinal: id.Ordinal}}
	if n, err := hex.Decode(k.hash[:], []byte(id.HeaderHash)); err != nil || n != len(k.hash) || len(id.HeaderHash) != 2*len(k.hash) {
		return -1
	}
	if i, ok := d.byMark[k]; ok {
		return i
	}
	return -1
}

// state returns what the host keeps of the maildrop. Only where every message
// has a unique id of its own does the hash over them show that nothing came or
// went: count and octets may stay the same when one message replaces another.
func (d *drop) state() message.MailboxState {
	st := message.MailboxState{Messages: d.count, Bytes: d.octets}
	if d.count < 0 {
		st.Messages = int64(d.len())
	}
	if len(d.weakOnes) == 0 && (d.count < 0 || d.count == int64(d.len())) {
		st.Content = hex.EncodeToString(d.print[:16])
	}
	return st
}

// validUIDL reports whether octets are a unique id: 1 to 70 visible ASCII
// characters (RFC 1939 §7).
func validUIDL(u []byte) bool {
	if len(u) < 1 || len(u) > 70 {
		return false
	}
	for _, c := range u {
		if c < 0x21 || c > 0x7e {
			return false
		}
	}
	return true
}

// listing collects the answers to LIST and UIDL.
type listing struct {
	nums  []uint32
	sizes []int64
	uidls []byte
	at    []uint32 // for each number of UIDL: where its id ends in uidls
	uids  []uint32 // the numbers of UIDL
}

// maxNumber bounds message numbers and counts: what is above isn't meant.
const maxNumber = 5_000_000

// readListLine reads "number size". Lines that aren't such are passed over:
// the message then has no size.
func (l *listing) readListLine(line []byte) {
	num, rest, ok := readNumber(line)
	if !ok {
		return
	}
	rest, _, _ = bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
	size, err := strconv.ParseInt(string(rest), 10, 64)
	if err != nil || size < 0 {
		size = -1
	}
	l.nums, l.sizes = append(l.nums, num), append(l.sizes, size)
}

// readUIDLLine reads "number unique-id". The id is all that follows the first
// space, spaces and all.
func (l *listing) readUIDLLine(line []byte) {
	num, rest, ok := readNumber(line)
	if !ok {
		return
	}
	l.uids = append(l.uids, num)
	l.uidls = append(l.uidls, bytes.TrimRight(rest, " \t")...)
	l.at = append(l.at, uint32(len(l.uidls)))
}

func readNumber(line []byte) (uint32, []byte, bool) {
	word, rest, _ := bytes.Cut(line, []byte(" "))
	var n uint32
	if len(word) == 0 {
		return 0, nil, false
	}
	for _, c := range word {
		if c < '0' || c > '9' || n > maxNumber {
			return 0, nil, false
		}
		n = n*10 + uint32(c-'0')
	}
	return n, rest, n > 0 && n <= maxNumber
}

// drop makes a maildrop of what was collected. A number that one of the two
// listings has is a message; of a number that comes twice the first counts.
// Only UIDs that are to be trusted are kept where byHeader is false; else all
// messages are weak, and known by their headers alone.
func (l *listing) drop(count, octets int64, byHeader bool) *drop {
	d := &drop{count: count, octets: octets}
	sizeAt, uidAt := ascending(l.nums), ascending(l.uids)
	for s, u := 0, 0; s < len(sizeAt) || u < len(uidAt); {
		var num uint32
		size := int64(-1)
		switch {
		case u == len(uidAt) || s < len(sizeAt) && l.nums[sizeAt[s]] <= l.uids[uidAt[u]]:
			num, size = l.nums[sizeAt[s]], l.sizes[sizeAt[s]]
			for s < len(sizeAt) && l.nums[sizeAt[s]] == num {
				s++
			}
		default:
			num = l.uids[uidAt[u]]
		}
		if u < len(uidAt) && l.uids[uidAt[u]] == num {
			n := uidAt[u]
			from := uint32(0)
			if n > 0 {
				from = l.at[n-1]
			}
			if !byHeader {
				d.arena = append(d.arena, l.uidls[from:l.at[n]]...)
			}
			for u < len(uidAt) && l.uids[uidAt[u]] == num {
				u++
			}
		}
		d.nums, d.sizes, d.ends = append(d.nums, num), append(d.sizes, size), append(d.ends, uint32(len(d.arena)))
	}
	d.sort()
	return d
}

// ascending returns the indices of nums in the order of their values. What
// comes twice keeps its order.
func ascending(nums []uint32) []int {
	at := make([]int, len(nums))
	for i := range at {
		at[i] = i
	}
	if !slices.IsSorted(nums) {
		slices.SortStableFunc(at, func(a, b int) int { return int(nums[a]) - int(nums[b]) })
	}
	return at
}

// sort finds the strong ids, the weak ones, and the fingerprint.
func (d *drop) sort() {
	order := make([]uint32, 0, d.len())
	for i := range d.nums {
		if validUIDL(d.rawUIDL(i)) {
			order = append(order, uint32(i))
		} else {
			d.weakOnes = append(d.weakOnes, uint32(i))
		}
	}
	byID := func(a, b uint32) int { return bytes.Compare(d.rawUIDL(int(a)), d.rawUIDL(int(b))) }
	if !slices.IsSortedFunc(order, byID) {
		slices.SortFunc(order, byID)
	}
	for from := 0; from < len(order); {
		to := from + 1
		for to < len(order) && byID(order[from], order[to]) == 0 {
			to++
		}
		if to-from == 1 {
			d.order = append(d.order, order[from])
		} else {
			d.weakOnes = append(d.weakOnes, order[from:to]...)
		}
		from = to
	}
	slices.Sort(d.weakOnes)
	d.identified = len(d.weakOnes) == 0
	h := sha256.New()
	h.Write(d.arena)
	var b [20]byte
	for i, num := range d.nums {
		binary.LittleEndian.PutUint32(b[:], num)
		binary.LittleEndian.PutUint32(b[4:], d.ends[i])
		size := int64(0)
		if !d.identified {
			size = d.sizes[i] // the only other thing that could tell
		}
		binary.LittleEndian.PutUint64(b[8:], uint64(size))
		h.Write(b[:16])
	}
	h.Sum(d.print[:0])
}
