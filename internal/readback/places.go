package readback

import (
	"hash/maphash"

	"github.com/mailhaul/pipeline/pkg/target"
)

// places is where each row of a manifest stands.
type places struct {
	seed maphash.Seed
	rows []place
	last map[uint64]int32 // hash of what a receipt names: the newest of its rows
}

// place is where a row of the manifest stands.
type place struct {
	offset int64
	before int32 // an older row of the same receipt; -1: none
}

func newPlaces() places { return places{seed: maphash.MakeSeed(), last: map[uint64]int32{}} }

func (p *places) add(r *target.Row, offset int64) {
	h := maphash.String(p.seed, named(r))
	before, ok := p.last[h]
	if !ok {
		before = -1
	}
	p.last[h] = int32(len(p.rows))
	p.rows = append(p.rows, place{offset, before})
}

// of returns the rows of each receipt, and reports whether each has any. read
// returns the row that stands at an offset.
func (p *places) of(receipts []string, read func(offset int64) (target.Row, error)) (rows [][]target.Row, all bool) {
	rows, all = make([][]target.Row, len(receipts)), true
	for i, receipt := range receipts {
		seen := map[string]bool{}
		for at, ok := p.last[maphash.String(p.seed, receipt)]; ok && at >= 0; at = p.rows[at].before {
			r, err := read(p.rows[at].offset)
			if err != nil || named(&r) != receipt || seen[r.Path] {
				continue // cut off, another one's of the same hash, or replaced since
			}
			seen[r.Path] = true
			rows[i] = append(rows[i], r)
		}
		all = all && len(rows[i]) > 0
	}
	return rows, all
}
