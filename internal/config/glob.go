package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// specials are the special uses that a pattern can name: RFC 6154 §2, RFC 8457
// §3, and the inbox.
var specials = []string{"all", "archive", "drafts", "flagged", "important", "inbox", "junk", "sent", "trash"}

// Matcher says which mailboxes of a source are exported. In a pattern `*`
// stands for anything within a level, `**` for anything across levels, `**/`
// for nothing too, and `special:trash` for the mailbox that the server calls
// its trash. All else is literal. INBOX, alone or as the first level, is the
// same in any case (RFC 3501 §5.1); all other names aren't.
//
// A Matcher doesn't change and is safe for concurrent use.
type Matcher struct {
	Include, Exclude []string // as they stand in the file
}

// NewMatcher returns a matcher for mailboxes that match one of include and none
// of exclude. No include means all.
func NewMatcher(include, exclude []string) (*Matcher, error) {
	for _, p := range slices.Concat(include, exclude) {
		if err := checkPattern(p); err != nil {
			return nil, err
		}
	}
	return &Matcher{Include: include, Exclude: exclude}, nil
}

func checkPattern(p string) error {
	use, special := strings.CutPrefix(p, "special:")
	switch {
	case p == "":
		return fmt.Errorf(`the pattern is empty: "**" stands for all mailboxes`)
	case special && !slices.Contains(specials, use):
		return fmt.Errorf("special:%s isn't known: expected one of %s%s", use, strings.Join(specials, ", "), spec.DidYouMean(use, specials))
	case strings.Contains(p, "***"):
		return fmt.Errorf("%q: expected * within a level or ** across levels", p)
	}
	return nil
}

// Match reports whether the mailbox is to be exported.
func (m *Matcher) Match(box message.Mailbox) bool {
	match := func(p string) bool { return matchPattern(p, box) }
	return (len(m.Include) == 0 || slices.ContainsFunc(m.Include, match)) && !slices.ContainsFunc(m.Exclude, match)
}

func matchPattern(p string, box message.Mailbox) bool {
	if use, ok := strings.CutPrefix(p, "special:"); ok {
		return use == "inbox" && strings.EqualFold(box.Name, "inbox") || slices.Contains(box.SpecialUse, use)
	}
	return matchGlob(foldInbox(p), foldInbox(box.Name))
}

// foldInbox writes the first level INBOX in capitals.
func foldInbox(name string) string {
	if len(name) >= 5 && strings.EqualFold(name[:5], "inbox") && (len(name) == 5 || name[5] == '/') {
		return "INBOX" + name[5:]
	}
	return name
}

// matchGlob goes back to the last * only, and when that would cross a level,
// to the last **: what an earlier wildcard could take, a later ** can too. So
// the time is bounded by a small power of the length, whatever the pattern.
func matchGlob(p, s string) bool {
	pi, si := 0, 0
	starP, starS := -1, 0     // after the last *, and what it has taken up to
	acrossP, acrossS := -1, 0 // the same for **
	levels := false           // that ** was **/, and takes whole levels
	for si < len(s) || pi < len(p) {
		if pi < len(p) {
			switch {
			case strings.HasPrefix(p[pi:], "**"):
				levels = strings.HasPrefix(p[pi:], "**/") && (pi == 0 || p[pi-1] == '/')
				pi += 2
				if levels {
					pi++
				}
				acrossP, acrossS, starP = pi, si, -1
				continue
			case p[pi] == '*':
				pi++
				starP, starS = pi, si
				continue
			case si < len(s) && p[pi] == s[si]:
				pi++
				si++
				continue
			}
		}
		switch {
		case starP >= 0 && starS < len(s) && s[starS] != '/':
			starS++
			pi, si = starP, starS
			continue
		case acrossP < 0 || acrossS >= len(s):
			return false
		case levels:
			next := strings.IndexByte(s[acrossS:], '/')
			if next < 0 {
				return false
			}
			acrossS += next
		}
		acrossS++
		pi, si, starP = acrossP, acrossS, -1
	}
	return true
}
