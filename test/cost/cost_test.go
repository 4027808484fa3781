package cost

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "testdata", "costs.golden")
	recorded := []Count{{Name: "commands", Got: 12}, {Name: "octets, down", Got: 1000}}
	Hold(t, file, true, recorded...)
	Hold(t, file, false, recorded...)
	before, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		counts []Count
		want   []string
	}{
		"as recorded":      {recorded, nil},
		"fewer":            {[]Count{{Name: "commands", Got: 3}, {Name: "octets, down", Got: 999}}, nil},
		"within the slack": {[]Count{{Name: "commands", Got: 14, Plus: 2}, {Name: "octets, down", Got: 1020, Slack: .02}}, nil},
		"more": {[]Count{{Name: "commands", Got: 14, Plus: 1}, {Name: "octets, down", Got: 1021, Slack: .02}}, []string{
			"commands grew from 12.00 to 14.00, and 13.00 is the most: find out why; where it is worth it, record it with go test -run '^TestX$' -update, and say why in the commit",
			"octets, down grew from 1000.00 to 1021.00, and 1020.00 is the most: find out why; where it is worth it, record it with go test -run '^TestX$' -update, and say why in the commit",
		}},
		"another": {[]Count{{Name: "commands", Got: 12}, {Name: "octets, up", Got: 1}}, []string{
			"octets, down is recorded and isn't counted any more: go test -run '^TestX$' -update",
			"octets, up isn't recorded: go test -run '^TestX$' -update",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, compare(before, tc.counts, "TestX")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAllocations(t *testing.T) {
	var keep [][]byte
	got := Allocations(1000, func() {
		keep = make([][]byte, 1000)
		for i := range keep {
			keep[i] = make([]byte, 100)
		}
	})
	if got != 1.001 {
		t.Errorf("%v allocations a message, want one each and the slice", got)
	}
}
