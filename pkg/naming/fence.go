package naming

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// hashLength is that of message.ID.Hash, in characters of base 32.
const hashLength = 10

// fenceMark returns what stands behind the hash; "" for no fence.
func fenceMark(fence uint64) string {
	if fence == 0 {
		return ""
	}
	return "~" + strconv.FormatUint(fence, 36)
}

// mark puts the fence behind the hash in the last element of the name at base,
// and another "~" where what follows could be read as a part of it.
func (t *Template) mark(b []byte, base int, hash string) []byte {
	last := max(base, bytes.LastIndexByte(b, '/')+1)
	i := bytes.LastIndex(b[last:], []byte(hash))
	if i < 0 { // no cut touches it
		panic("naming: a name without its hash")
	}
	at := last + i + len(hash)
	mark := t.fence
	if at < len(b) && isDigit36(b[at]) {
		mark += "~"
	}
	return slices.Insert(b, at, []byte(mark)...)
}

func isDigit36(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' }

// Fences returns the numbers of the fences that stand in a name, each once: the
// one that a template put there (Options.Fence), and what looks like it in the
// words of strangers, as in a subject. None for a name without.
func Fences(name string) []uint64 {
	var out []uint64
	for at := 0; ; {
		i := strings.IndexByte(name[at:], '~')
		if i < 0 {
			return out
		}
		at += i + 1
		if !endsInHash(name[:at-1]) {
			continue
		}
		end := at
		for end < len(name) && isDigit36(name[end]) {
			end++
		}
		n, err := strconv.ParseUint(name[at:end], 36, 64)
		if err == nil && n != 0 && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
}

// endsInHash reports whether s ends in what may be the hash of an id.
func endsInHash(s string) bool {
	if len(s) < hashLength {
		return false
	}
	for _, c := range []byte(s[len(s)-hashLength:]) {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
