package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/message"
)

func TestFinished(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	inbox, drop := box(t, l, "INBOX"), box(t, l, "")
	ids := []message.ID{uid(1), uid(5), uid(1<<32 - 1), uid(7)}
	strings := []message.ID{uidl("a", "", 0), uidl("a", "h", 1), uidl("unknown", "", 0)}
	commit(t, l, Epoch{Settled: []Settled{{Box: drop, ID: strings[0], Fates: []Fate{{Target: 1, Class: Written}}}, {Box: drop, ID: strings[1], Fates: []Fate{{Target: 1, Class: Written}}}}})
	for box, some := range map[Box][]message.ID{inbox: ids[:3], drop: strings[:1]} {
		if err := l.Finish(t.Context(), box, `\Seen`, some); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Finish(t.Context(), inbox, "$Exported", ids[1:2]); err != nil { // another flag takes its place
		t.Fatal(err)
	}
	l = reopen(t, l)
	for _, tt := range []struct {
		box  Box
		flag string
		ids  []message.ID
		want []bool
	}{
		{inbox, `\Seen`, ids, []bool{true, false, true, false}},
		{inbox, "$Exported", ids, []bool{false, true, false, false}},
		{drop, `\Seen`, strings, []bool{true, false, false}},
		{drop, `\Seen`, strings[2:], []bool{false}},
	} {
		got, err := l.Finished(t.Context(), tt.box, tt.flag, tt.ids)
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%v of %v: %v %s", tt.flag, tt.ids, err, diff)
		}
	}
}
