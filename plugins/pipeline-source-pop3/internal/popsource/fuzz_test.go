package popsource

import (
	"bytes"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
)

// FuzzListing: whatever LIST and UIDL say, each message is there once, in the
// order of the numbers, and is found by its id.
func FuzzListing(f *testing.F) {
	f.Add([]byte("1 10\n2 20\n3 30"), []byte("1 a\n2 b\n3 c"))
	f.Add([]byte("3 1\n1 1\n3 2\nx"), []byte("2 a\n2 b\n1 a\n7 a"))
	f.Add([]byte(""), []byte("1\n2 \n3 a b\n4 \xff"))
	f.Fuzz(func(t *testing.T, sizes, uidls []byte) {
		l := new(listing)
		for line := range bytes.SplitSeq(sizes, []byte("\n")) {
			l.readListLine(line)
		}
		for line := range bytes.SplitSeq(uidls, []byte("\n")) {
			l.readUIDLLine(line)
		}
		d := l.drop(-1, -1, false)
		have := map[uint32]bool{}
		for _, n := range append(l.nums, l.uids...) {
			have[n] = true
		}
		if len(have) != d.len() {
			t.Fatalf("%d messages, want %d", d.len(), len(have))
		}
		if len(d.order)+len(d.weakOnes) != d.len() {
			t.Fatalf("%d strong and %d weak of %d", len(d.order), len(d.weakOnes), d.len())
		}
		weak := map[int]bool{}
		for _, i := range d.weakOnes {
			weak[int(i)] = true
		}
		seen := map[message.ID]bool{}
		for i := range d.nums {
			if i > 0 && d.nums[i] <= d.nums[i-1] || !have[d.nums[i]] {
				t.Fatalf("the numbers are %v", d.nums)
			}
			if weak[i] {
				continue
			}
			id := d.id(i)
			if seen[id] || d.find(id) != i {
				t.Fatalf("message %d, %+v, is found at %d, twice %v", i, id, d.find(id), seen[id])
			}
			seen[id] = true
		}
	})
}

// FuzzRanges: a set of numbers is refused or understood, and * is the last.
func FuzzRanges(f *testing.F) {
	for _, seed := range []string{"1:50,100:*", "*", "", "3:1", "0", "1,", "4294967296"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ranges, ok := parseRanges(text)
		if !ok && ranges != nil {
			t.Fatalf("%q is refused and has %v", text, ranges)
		}
		for _, r := range ranges {
			if r.first == 0 && !r.has(9, 9) || r.first > 0 && !r.has(r.first, max(r.first, r.last, 9)) {
				t.Fatalf("%q: %v lacks its own end", text, r)
			}
		}
	})
}
