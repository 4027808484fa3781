package popsource

import (
	"strconv"
	"strings"
)

// numberRange is a range of message numbers, both ends within; 0 stands for *,
// the last message.
type numberRange struct{ first, last uint32 }

// parseRanges reads a set as in 1:50,100:*. The empty text is the empty set.
func parseRanges(text string) ([]numberRange, bool) {
	if text == "" {
		return nil, true
	}
	number := func(s string) (uint32, bool) {
		if s == "*" {
			return 0, true
		}
		n, err := strconv.ParseUint(s, 10, 32)
		return uint32(n), err == nil && n > 0
	}
	var out []numberRange
	for piece := range strings.SplitSeq(text, ",") {
		a, b, two := strings.Cut(strings.TrimSpace(piece), ":")
		if !two {
			b = a
		}
		first, ok := number(a)
		last, ok2 := number(b)
		if !ok || !ok2 {
			return nil, false
		}
		out = append(out, numberRange{first, last})
	}
	return out, true
}

func (r numberRange) has(n, largest uint32) bool {
	first, last := r.first, r.last
	if first == 0 {
		first = largest
	}
	if last == 0 {
		last = largest
	}
	return n >= min(first, last) && n <= max(first, last)
}

// selects returns the function that says which messages of a maildrop the
// user wants.
func (s *Source) selects(d *drop) func(i int) bool {
	ranges, _ := parseRanges(s.config.Select.Sequence)
	uidls := s.uidls
	var largest uint32
	if n := d.len(); n > 0 {
		largest = d.nums[n-1]
	}
	return func(i int) bool {
		if uidls != nil && !uidls[d.uidl(i)] {
			return false
		}
		if len(ranges) == 0 {
			return true
		}
		for _, r := range ranges {
			if r.has(d.nums[i], largest) {
				return true
			}
		}
		return false
	}
}
