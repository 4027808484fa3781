package source_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

func ids(uids ...uint32) []message.ID {
	out := make([]message.ID, len(uids))
	for i, uid := range uids {
		out[i] = message.ID{Mailbox: "INBOX", UIDValidity: 1, UID: uid}
	}
	return out
}

func TestPage(t *testing.T) {
	t.Parallel()
	all := ids(1, 2, 3, 4, 5)
	after := func(uid uint32) *message.ID { return &ids(uid)[0] }
	tests := []struct {
		name string
		req  source.ListRequest
		want []uint32
	}{
		{"all", source.ListRequest{}, []uint32{1, 2, 3, 4, 5}},
		{"newest first", source.ListRequest{Newest: true}, []uint32{5, 4, 3, 2, 1}},
		{"only these, in order", source.ListRequest{IDs: ids(4, 9, 2)}, []uint32{2, 4}},
		{"only none", source.ListRequest{IDs: ids()}, nil},
		{"a page", source.ListRequest{After: after(2), Limit: 2}, []uint32{3, 4}},
		{"the last page", source.ListRequest{After: after(4), Limit: 2}, []uint32{5}},
		{"a page, newest first", source.ListRequest{Newest: true, After: after(4), Limit: 2}, []uint32{3, 2}},
		{"after one that went", source.ListRequest{After: after(9)}, nil},
		{"skip", source.ListRequest{Skip: 3}, []uint32{4, 5}},
		{"skip all", source.ListRequest{Skip: 5}, nil},
		{"skip too many", source.ListRequest{Skip: 9, Newest: true}, nil},
		{"skip after", source.ListRequest{After: after(1), Skip: 1, Limit: 1}, []uint32{3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.req.Page(all); !slices.Equal(got, ids(tt.want...)) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if all[0].UID != 1 {
		t.Error("it changed its argument")
	}
}

func ExampleListRequest_Page() {
	all := []message.ID{{UIDL: "a"}, {UIDL: "b"}, {UIDL: "c"}} // oldest first
	for _, id := range (source.ListRequest{Newest: true, Limit: 2}).Page(all) {
		fmt.Println(id.UIDL)
	}
	// Output:
	// c
	// b
}
