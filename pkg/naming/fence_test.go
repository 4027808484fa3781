package naming_test

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
)

// A name with a fence is the one without, with "~" and the number behind the
// hash, however it is cut; and the number can be read back.
func TestFenceStandsBehindTheHash(t *testing.T) {
	t.Parallel()
	id := message.ID{Source: "alice", Mailbox: "Projects/" + strings.Repeat("deep/", 30) + "end", UIDValidity: 1, UID: 57}
	for _, tt := range []struct {
		name, template, subject string
		end                     bool // a "~" ends the number too
	}{
		{name: "before the ending", template: naming.Default},
		{name: "in mid-name", template: "{hash}-{subject}", subject: "lunch"},
		{name: "letters follow", template: "{hash}{subject}", subject: "lunch", end: true},
		{name: "a directory has the hash too", template: "{hash}/{uid}-{hash}"},
		{name: "a long subject", template: naming.Default, subject: strings.Repeat("words and ", 60)},
		{name: "a subject that looks like it", template: naming.Default, subject: "abcdefghij~zzz"},
	} {
		for _, fence := range []uint64{1, 35, 36, 723, math.MaxUint64} {
			t.Run(tt.name+" "+strconv.FormatUint(fence, 10), func(t *testing.T) {
				t.Parallel()
				m := &message.Summary{ID: id, Header: message.NewHeader([]byte("Subject: " + tt.subject + "\r\n\r\n"))}
				name := func(fence uint64) string {
					p, err := naming.Parse(tt.template, naming.Options{Extension: ".eml", Fence: fence})
					if err != nil {
						t.Fatal(err)
					}
					return p.Name(m)
				}
				plain, got := name(0), name(fence)
				mark := "~" + strconv.FormatUint(fence, 36)
				if tt.end {
					mark += "~"
				}
				at := strings.LastIndex(plain, id.Hash()) + len(id.Hash())
				if want := plain[:at] + mark + plain[at:]; got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
				if !slices.Contains(naming.Fences(got), fence) {
					t.Errorf("%s is read as %d", got, naming.Fences(got))
				}
			})
		}
	}
}

func TestFences(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]uint64{
		"alice/INBOX/2006-01-02-1-hello-abcdefghij.eml":      nil,
		"alice/INBOX/2006-01-02-1-hello-abcdefghij~k3.eml":   {723},
		"alice/INBOX/1-abcdefghij~k3/paper.pdf":              {723},
		"alice/INBOX/1-abcdefghij~k3/paper-abcdefghij~1.pdf": {723, 1},
		"a-abcdefghij~k3~lunch.eml":                          {723},
		"~k3.eml":                                            nil,
		"abcdefghi1~k3.eml":                                  nil, // 1 is no character of base 32
		"abcdefghij~.eml":                                    nil,
		"abcdefghij~0.eml":                                   nil,
		"abcdefghij~zzzzzzzzzzzzzzzzzzzz.eml":                nil, // no 64 bits
		"abcdefghij~K3.eml":                                  nil,
		"abcdefghij~k3-abcdefghij~k3.eml":                    {723},
		"":                                                   nil,
	} {
		if got := naming.Fences(name); !slices.Equal(got, want) {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
	}
}
