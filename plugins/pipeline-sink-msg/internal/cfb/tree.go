package cfb

import (
	"math/bits"
	"slices"
)

// link turns each storage's children into a red-black tree (MS-CFB §2.6.4):
// balanced, black but for its lowest level, which is red where it isn't full.
// So all paths have the same number of black nodes.
func (f *File) link() {
	for i := range f.entries {
		e := &f.entries[i]
		e.left, e.right, e.child = freeSect, freeSect, freeSect
		e.red = false
	}
	for i := range f.entries {
		if f.entries[i].first < 0 {
			continue
		}
		f.order = f.order[:0]
		sorted := true
		for c := f.entries[i].first; c >= 0; c = f.entries[c].next {
			if sorted && len(f.order) > 0 {
				sorted = compare(&f.entries[f.order[len(f.order)-1]], &f.entries[c]) < 0
			}
			f.order = append(f.order, c)
		}
		if !sorted {
			slices.SortFunc(f.order, func(a, b int32) int { return compare(&f.entries[a], &f.entries[b]) })
			for j := 1; j < len(f.order); j++ {
				if compare(&f.entries[f.order[j-1]], &f.entries[f.order[j]]) == 0 {
					f.fail("two siblings have the same name")
					return
				}
			}
		}
		n := len(f.order)
		red := -1
		if n&(n+1) != 0 {
			red = bits.Len(uint(n)) - 1
		}
		f.entries[i].child = f.subtree(f.order, 0, red)
	}
}

func (f *File) subtree(order []int32, depth, red int) uint32 {
	if len(order) == 0 {
		return freeSect
	}
	mid := len(order) / 2
	e := &f.entries[order[mid]]
	e.red = depth == red
	e.left = f.subtree(order[:mid], depth+1, red)
	e.right = f.subtree(order[mid+1:], depth+1, red)
	return uint32(order[mid])
}
