package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/attachments"
	"github.com/mailhaul/pipeline/pkg/attachment"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/test/cost"
)

// TestMIMEIsReadOnce: whoever needs to know in the host what a message is made
// of, its octets are read for that once; where nobody does, never.
func TestMIMEIsReadOnce(t *testing.T) {
	const messages = 4
	strip := func(name, mediaType string) stages.Config {
		f := attachment.Filter{}
		if mediaType != "" {
			f.MediaTypes = []string{mediaType}
		}
		return stages.Config{Name: name, Attachments: &attachments.Config{Strip: &f}}
	}
	for _, tc := range []struct {
		name   string
		index  message.Needs
		filter string
		stages []stages.Config
		want   int64 // for each message
	}{
		{name: "nobody asks", index: message.NeedHeaders},
		{name: "an index", index: message.NeedHeaders | message.NeedStructure, want: 1},
		{name: "a filter", filter: `any(attachments, .media_type == "application/pdf")`, want: 1},
		{name: "a stage", stages: []stages.Config{strip("strip", "")}, want: 1},
		{name: "two stages, and the first means nothing of it", stages: []stages.Config{strip("images", "image/*"), strip("strip", "")}, want: 1},
		{name: "an index, a filter and two stages", index: message.NeedHeaders | message.NeedStructure,
			filter: `any(attachments, .media_type == "application/pdf")`,
			stages: []stages.Config{strip("images", "image/*"), strip("strip", "")}, want: 1},
	} {
		for _, size := range []int{100, 3 << 20} {
			t.Run(fmt.Sprintf("%s, %d octets", tc.name, size), func(t *testing.T) {
				s := newServer(messages, "INBOX")
				s.octets = mailOf(size)
				s.hides = message.NeedStructure
				r := newRig(t, s)
				if tc.index != 0 {
					r.index(tc.index)
				}
				if tc.filter != "" {
					r.filter("chosen", tc.filter)
				}
				r.stages = append(r.stages, tc.stages...)
				got := cost.Parses(func() { r.wantExit(r.run(), engine.ExitDone) })
				if want := messages * tc.want; got != want {
					t.Errorf("the MIME of %d messages was read %d times, want %d", messages, got, want)
				}
				if n := len(r.stores["files"].contents()); n != messages {
					t.Errorf("%d messages were written, want %d", n, messages)
				}
				for _, octets := range r.stores["files"].contents() {
					if gone := strings.Contains(octets, "An attachment was taken out"); gone != (tc.stages != nil) {
						t.Errorf("the attachment was taken out: %t", gone)
					}
				}
			})
		}
	}
}
