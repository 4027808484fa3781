package spec

import "strings"

// Nearest returns the candidate that word was most likely meant to be, or ""
// when none is near: at most a third of the letters differ, upper and lower
// case count as equal, and two neighbours that changed places as one.
// Of equally near ones one that begins with word wins, then the first.
func Nearest(word string, candidates []string) string {
	if len(word) > 64 {
		return ""
	}
	w := []rune(strings.ToLower(word))
	best, bestAt := "", len(w)/3+1
	for _, c := range candidates {
		lc := strings.ToLower(c)
		d := distance(w, []rune(lc), bestAt+1)
		if d < bestAt || d == bestAt && best != "" && strings.HasPrefix(lc, string(w)) && !strings.HasPrefix(strings.ToLower(best), string(w)) {
			best, bestAt = c, d
		}
	}
	if best == "" {
		// A word that is the start of exactly one candidate, or has one as its
		// start, is near enough: "include_mailboxes" for "include".
		for _, c := range candidates {
			lc := strings.ToLower(c)
			if len(w) >= 2 && len(lc) >= 2 && (strings.HasPrefix(lc, string(w)) || strings.HasPrefix(string(w), lc)) {
				if best != "" {
					return ""
				}
				best = c
			}
		}
	}
	return best
}

// distance is the edit distance with transpositions; max or more is all the
// same to the caller.
func distance(a, b []rune, max int) int {
	if d := len(a) - len(b); d >= max || -d >= max {
		return max
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
