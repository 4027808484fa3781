package browse

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rivo/uniseg"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Safe returns a text of a stranger as one line that does nothing to a
// terminal: characters that control one, or turn the order of what stands
// around, become U+FFFD; white space of any kind becomes a space.
func Safe(s string) string {
	clean := true
	for _, r := range s {
		if unsafe(r) || r != ' ' && unicode.IsSpace(r) {
			clean = false
			break
		}
	}
	if clean {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unsafe(r):
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// unsafe reports whether a character does more than stand there: the controls
// of C0 and C1, those that turn the direction of a text (Trojan Source), and
// what Unicode keeps for tags and private use of formats.
func unsafe(r rune) bool {
	switch {
	case unicode.Is(unicode.Cc, r),
		r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069, r == 0x200E, r == 0x200F, r == 0x061C,
		r == 0x2028, r == 0x2029, r == 0xFEFF, r >= 0xFFF9 && r <= 0xFFFB, r >= 0xE0000 && r <= 0xE007F:
		return true
	}
	return false
}

// cell is a value as a line of text has it: full is for machines, else for a
// person.
func cell(v any, full bool) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return Safe(v)
	case int:
		return strconv.Itoa(v)
	case bool:
		return map[bool]string{true: "yes", false: "no"}[v]
	case time.Time:
		if full {
			return message.RFC3339(v)
		}
		return v.Local().Format("2006-01-02 15:04")
	case []string:
		return Safe(strings.Join(v, ", "))
	case []expression.Attachment:
		all := make([]string, len(v))
		for i, a := range v {
			all[i] = attachment(a, full)
		}
		return strings.Join(all, "; ")
	}
	return Safe(fmt.Sprint(v))
}

// attachment is one attachment in words.
func attachment(a expression.Attachment, full bool) string {
	name := Safe(a.Name)
	if name == "" {
		name = "(no name)"
	}
	size := Size(int64(a.Size))
	if full {
		size = strconv.Itoa(a.Size)
	}
	return fmt.Sprintf("%s (%s, %s)", name, Safe(a.MediaType), size)
}

// Size returns octets in the unit that a person reads best: 1,000 to a KB.
func Size(n int64) string {
	if n < 0 {
		return "?"
	}
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), -1
	for v >= 999.95 && unit < 4 {
		v /= 1000
		unit++
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + string("KMGTP"[unit]) + "B"
}

// Count returns a number with its thousands apart, "?" for one that isn't
// known.
func Count(n int64) string {
	if n < 0 {
		return "?"
	}
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// counted is a number of things.
func counted(n int64, one, many string) string {
	if n == 1 {
		many = one
	}
	return Count(n) + " " + many
}

// fit makes a text exactly so many places wide, as a terminal shows it:
// cut with an ellipsis, or filled up with spaces.
func fit(s string, places int, right bool) string {
	w := uniseg.StringWidth(s)
	if w > places {
		s = cut(s, places)
		w = uniseg.StringWidth(s)
	}
	fill := strings.Repeat(" ", max(0, places-w))
	if right {
		return fill + s
	}
	return s + fill
}

// cut shortens a text to at most so many places.
func cut(s string, places int) string {
	if uniseg.StringWidth(s) <= places {
		return s
	}
	if places <= 0 {
		return ""
	}
	var b strings.Builder
	used, state := 0, -1
	for rest := s; rest != ""; {
		var cluster string
		var w int
		cluster, rest, w, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if used+w > places-1 {
			break
		}
		b.WriteString(cluster)
		used += w
	}
	return b.String() + "…"
}
