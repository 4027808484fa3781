package imapdata

import (
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Range is the UIDs from First to Last, both included.
type Range struct{ First, Last uint32 }

// Set is a set of UIDs: ranges in ascending order that neither touch nor
// overlap. A mailbox of a million messages is mostly a few of them.
type Set []Range

// Count returns the number of UIDs.
func (s Set) Count() int64 {
	var n int64
	for _, r := range s {
		n += int64(r.Last) - int64(r.First) + 1
	}
	return n
}

// Has reports whether the UID is in the set.
func (s Set) Has(uid uint32) bool {
	i := sort.Search(len(s), func(i int) bool { return s[i].Last >= uid })
	return i < len(s) && s[i].First <= uid
}

// Add adds a range. Ranges that come in ascending order cost no search.
func (s *Set) Add(first, last uint32) {
	if first > last {
		first, last = last, first
	}
	if n := len(*s); n == 0 || uint64(first) > uint64((*s)[n-1].Last)+1 {
		*s = append(*s, Range{first, last})
		return
	} else if first >= (*s)[n-1].First {
		(*s)[n-1].Last = max((*s)[n-1].Last, last)
		return
	}
	*s = append(*s, Range{first, last})
	s.normalise()
}

func (s *Set) normalise() {
	all := *s
	slices.SortFunc(all, func(a, b Range) int {
		if a.First < b.First {
			return -1
		}
		if a.First > b.First {
			return 1
		}
		return 0
	})
	out := all[:0]
	for _, r := range all {
		if n := len(out); n > 0 && uint64(r.First) <= uint64(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	*s = out
}

// Of returns the set of the UIDs, in any order.
func Of(uids []uint32) Set {
	var s Set
	sorted := slices.IsSorted(uids)
	for _, u := range uids {
		if sorted {
			s.Add(u, u)
		} else {
			s = append(s, Range{u, u})
		}
	}
	if !sorted {
		s.normalise()
	}
	return s
}

// And returns what is in both sets.
func (s Set) And(t Set) Set {
	var out Set
	for i, j := 0, 0; i < len(s) && j < len(t); {
		lo, hi := max(s[i].First, t[j].First), min(s[i].Last, t[j].Last)
		if lo <= hi {
			out = append(out, Range{lo, hi})
		}
		if s[i].Last < t[j].Last {
			i++
		} else {
			j++
		}
	}
	return out
}

// Below returns the UIDs below uid, Above those above it.
func (s Set) Below(uid uint32) Set {
	if uid == 0 {
		return nil
	}
	return s.And(Set{{1, uid - 1}})
}

// Above returns the UIDs above uid.
func (s Set) Above(uid uint32) Set {
	if uid == 1<<32-1 {
		return nil
	}
	return s.And(Set{{uid + 1, 1<<32 - 1}})
}

// Minus returns what is in s and not in t.
func (s Set) Minus(t Set) Set {
	var out Set
	j := 0
	for _, r := range s {
		first := uint64(r.First)
		for j > 0 && t[j-1].Last >= r.First {
			j--
		}
		for ; j < len(t) && t[j].First <= r.Last; j++ {
			if t[j].Last < r.First {
				continue
			}
			if uint64(t[j].First) > first {
				out = append(out, Range{uint32(first), t[j].First - 1})
			}
			first = uint64(t[j].Last) + 1
		}
		if first <= uint64(r.Last) {
			out = append(out, Range{uint32(first), r.Last})
		}
	}
	return out
}

// Ranks returns a function that says at which place of the set, from 1, a UID
// stands; 0 when it isn't in it. In a set of all UIDs of a mailbox that is the
// sequence number.
func (s Set) Ranks() func(uid uint32) uint32 {
	before := make([]uint32, len(s))
	var n uint32
	for i, r := range s {
		before[i] = n
		n += r.Last - r.First + 1
	}
	return func(uid uint32) uint32 {
		i := sort.Search(len(s), func(i int) bool { return s[i].Last >= uid })
		if i == len(s) || s[i].First > uid {
			return 0
		}
		return before[i] + uid - s[i].First + 1
	}
}

// First returns the n smallest UIDs, Last the n largest.
func (s Set) First(n int64) Set {
	if n <= 0 {
		return nil
	}
	for i, r := range s {
		size := int64(r.Last) - int64(r.First) + 1
		if size >= n {
			return append(slices.Clone(s[:i]), Range{r.First, r.First + uint32(n-1)})
		}
		n -= size
	}
	return s
}

// Last returns the n largest UIDs.
func (s Set) Last(n int64) Set {
	if n <= 0 {
		return nil
	}
	for i := len(s) - 1; i >= 0; i-- {
		r := s[i]
		size := int64(r.Last) - int64(r.First) + 1
		if size >= n {
			return append(Set{{r.Last - uint32(n-1), r.Last}}, s[i+1:]...)
		}
		n -= size
	}
	return s
}

// TakeFirst removes the n smallest UIDs and returns them. It changes the set in
// place: page after page of a set of a million ranges costs the pages alone.
func (s *Set) TakeFirst(n int64) Set {
	page := slices.Clone(s.First(n))
	if len(page) == 0 {
		return nil
	}
	rest := (*s)[len(page)-1:]
	if last := page[len(page)-1].Last; last == rest[0].Last {
		rest = rest[1:]
	} else {
		rest[0].First = last + 1
	}
	*s = rest
	return page
}

// TakeLast removes the n largest UIDs and returns them, as TakeFirst does.
func (s *Set) TakeLast(n int64) Set {
	page := slices.Clone(s.Last(n))
	if len(page) == 0 {
		return nil
	}
	end := len(*s) - len(page)
	if first := page[0].First; first != (*s)[end].First {
		(*s)[end].Last = first - 1
		end++
	}
	*s = (*s)[:end]
	return page
}

// All calls f for each UID in ascending order, until it returns false.
func (s Set) All(f func(uint32) bool) { s.Each(false, f) }

// TakeThrough removes the UIDs up to uid and returns them, as TakeFirst does.
func (s *Set) TakeThrough(uid uint32) Set {
	n := 0
	for n < len(*s) && (*s)[n].Last <= uid {
		n++
	}
	page := slices.Clone((*s)[:n])
	*s = (*s)[n:]
	if len(*s) > 0 && (*s)[0].First <= uid {
		page = append(page, Range{(*s)[0].First, uid})
		(*s)[0].First = uid + 1
	}
	return page
}

// TakeFrom removes the UIDs from uid on and returns them.
func (s *Set) TakeFrom(uid uint32) Set {
	n := len(*s)
	for n > 0 && (*s)[n-1].First >= uid {
		n--
	}
	page := slices.Clone((*s)[n:])
	*s = (*s)[:n]
	if n > 0 && (*s)[n-1].Last >= uid {
		page = append(Set{{uid, (*s)[n-1].Last}}, page...)
		(*s)[n-1].Last = uid - 1
	}
	return page
}

// Each is All in either order. It reports whether f never returned false.
func (s Set) Each(descending bool, f func(uint32) bool) bool {
	if !descending {
		for _, r := range s {
			for u := uint64(r.First); u <= uint64(r.Last); u++ {
				if !f(uint32(u)) {
					return false
				}
			}
		}
		return true
	}
	for i := len(s) - 1; i >= 0; i-- {
		for u := uint64(s[i].Last); u >= uint64(s[i].First); u-- {
			if !f(uint32(u)) {
				return false
			}
		}
	}
	return true
}

// Chunks returns the set as text for commands, each at most limit octets long
// or a single range: servers bound the length of a line.
func (s Set) Chunks(limit int) []Chunk {
	var out []Chunk
	var b strings.Builder
	from := 0
	for i, r := range s {
		t := r.String()
		if b.Len() > 0 && b.Len()+1+len(t) > limit {
			out = append(out, Chunk{b.String(), s[from:i]})
			b.Reset()
			from = i
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(t)
	}
	if b.Len() > 0 {
		out = append(out, Chunk{b.String(), s[from:]})
	}
	return out
}

// Chunk is a piece of a set and its text.
type Chunk struct {
	Text string
	Set  Set
}

// String returns the range as text.
func (r Range) String() string {
	if r.First == r.Last {
		return strconv.FormatUint(uint64(r.First), 10)
	}
	return strconv.FormatUint(uint64(r.First), 10) + ":" + strconv.FormatUint(uint64(r.Last), 10)
}

// String returns the set as a sequence-set (RFC 9051 §9).
func (s Set) String() string {
	t := make([]string, len(s))
	for i, r := range s {
		t[i] = r.String()
	}
	return strings.Join(t, ",")
}

// ParseSet reads a sequence-set. "*" is 2³²-1, as RFC 9051 says of the
// largest number in use; what can't be read is left out, and ok is false.
func ParseSet(text string) (set Set, ok bool) { return ParseSetTo(text, 1<<32-1) }

// ParseSetTo is ParseSet where the largest number in use is known.
func ParseSetTo(text string, largest uint32) (set Set, ok bool) {
	ok = true
	one := func(t string) (uint32, bool) {
		if t == "*" {
			return largest, true
		}
		n, good := number32([]byte(t))
		return n, good && n > 0
	}
	for _, piece := range strings.Split(text, ",") {
		a, b, isRange := strings.Cut(strings.TrimSpace(piece), ":")
		if !isRange {
			b = a
		}
		first, good1 := one(a)
		last, good2 := one(b)
		if !good1 || !good2 {
			ok = false
			continue
		}
		set.Add(first, last)
	}
	return set, ok
}

// ReadSearch adds the numbers of a SEARCH response to the set. Servers may
// send them in any order: they are sorted once, at the end.
func (s *Set) ReadSearch(data []byte) {
	sc := scanner{b: data}
	sorted := true
	for {
		k, v := sc.next()
		if k != atom {
			break // the end, or (MODSEQ n)
		}
		n, ok := number32(v)
		if !ok || n == 0 {
			continue
		}
		if l := len(*s); sorted && (l == 0 || n > (*s)[l-1].First) {
			s.Add(n, n)
			continue
		}
		sorted = false
		*s = append(*s, Range{n, n})
	}
	if !sorted {
		s.normalise()
	}
}

// CouldBeOf reports whether the answer to a search may be that to one of the
// commands with these tags: it says so, or it says nothing of whose it is
// (RFC 4466 §2.6.2: it must, but what a server leaves out is no proof).
func CouldBeOf(data []byte, tags []string) bool {
	sc := scanner{b: data}
	if k, _ := sc.next(); k != opened {
		return true
	}
	if _, word := sc.next(); !strings.EqualFold(string(word), "TAG") {
		return true
	}
	_, of := sc.next()
	return slices.ContainsFunc(tags, func(tag string) bool { return strings.EqualFold(string(of), tag) })
}

// ReadESearch adds what an ESEARCH response has under ALL (RFC 4731 §3.1).
func (s *Set) ReadESearch(data []byte) {
	sc := scanner{b: data}
	for {
		k, v := sc.next()
		switch k {
		case end:
			return
		case opened:
			sc.skipRest() // (TAG "m1")
		case atom:
			if strings.EqualFold(string(v), "ALL") {
				_, v = sc.next()
				all, _ := ParseSet(string(v))
				for _, r := range all {
					s.Add(r.First, r.Last)
				}
			}
		}
	}
}
