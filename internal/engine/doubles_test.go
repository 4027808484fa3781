package engine

import (
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
)

func TestDoubles(t *testing.T) {
	t.Parallel()
	uid := func(n uint32) message.ID { return message.ID{Mailbox: "m", UIDValidity: 1, UID: n} }
	uidl := func(s string) message.ID { return message.ID{UIDL: s} }
	tests := []struct {
		name string
		ids  []message.ID
		at   int // the first that is listed twice; -1: none
	}{
		{"UIDs rise", []message.ID{uid(1), uid(2), uid(9)}, -1},
		{"UIDs fall", []message.ID{uid(9), uid(2), uid(1)}, -1},
		{"the same again", []message.ID{uid(1), uid(1)}, 1},
		{"an earlier one again", []message.ID{uid(1), uid(2), uid(3), uid(2)}, 3},
		{"an earlier one after a gap", []message.ID{uid(1), uid(5), uid(3), uid(4), uid(1)}, 4},
		{"falling, then again", []message.ID{uid(5), uid(3), uid(5)}, 2},
		{"no order, none twice", []message.ID{uid(4), uid(8), uid(1), uid(7)}, -1},
		{"strings", []message.ID{uidl("a"), uidl("b"), uidl("a")}, 2},
		{"another UIDVALIDITY", []message.ID{uid(1), {Mailbox: "m", UIDValidity: 2, UID: 2}, uid(1)}, 2},
		{"another mailbox", []message.ID{uid(3), {Mailbox: "n", UIDValidity: 1, UID: 4}, uid(3)}, 2},
	}
	for _, tt := range tests {
		var d doubles
		var list []message.Summary
		at := -1
		for i, id := range tt.ids {
			if d.has(list, &id) {
				at = i
				break
			}
			list = append(list, message.Summary{ID: id})
		}
		if at != tt.at {
			t.Errorf("%s: twice at %d, want %d", tt.name, at, tt.at)
		}
	}
}
