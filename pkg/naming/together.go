package naming

import (
	"strconv"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// maxEnding is how long what follows the last dot of a name may be to count as
// its ending, which is never cut.
const maxEnding = 16

// Together returns names for files that stand in one directory, made of names
// that strangers chose: portable, no longer than most UTF-16 units and MaxElement
// bytes with their ending whole, and no two the same, not even where case doesn't
// count. One that is taken gets a number: "a.pdf", "a-2.pdf". They depend on the
// names and their order alone. most is at least 32.
func Together(names []string, most int) []string {
	out := make([]string, len(names))
	taken, next := map[string]bool{}, map[string]int{}
	fold := cases.Fold()
	key := func(s string) string { return norm.NFC.String(fold.String(s)) }
	for i, name := range names {
		clean := string(closeElement(appendValue(nil, name), 0))
		stem, ending := clean, ""
		if dot := strings.LastIndexByte(clean, '.'); dot > 0 && len(clean)-dot <= maxEnding {
			stem, ending = clean[:dot], clean[dot:]
		}
		made := func(mark string) string {
			rest := []byte(ending + mark)
			short := cut([]byte(stem), max(most-units(rest), 1), units)
			short = cut(short, max(MaxElement-len(rest)-1, 1), byteLen)
			return string(closeElement([]byte(strings.TrimRight(string(short), ". ")+mark+ending), 0))
		}
		base := made("")
		out[i] = base
		for n := max(next[key(base)], 2); taken[key(out[i])]; n++ {
			out[i] = made("-" + strconv.Itoa(n))
			next[key(base)] = n + 1
		}
		taken[key(out[i])] = true
	}
	return out
}
