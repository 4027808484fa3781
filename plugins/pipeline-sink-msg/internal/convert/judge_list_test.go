//go:build judge

package convert_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// disagreement is what testdata/judge.tsv says of a mail.
type disagreement struct {
	most   []string // fields that most readers dispute: writer faults, by the judge's count
	reader []string // fields that the judge's fastest reader disputes alone
}

// all are the fields that the fastest reader disputes.
func (d disagreement) all() []string {
	return slices.Sorted(slices.Values(slices.Concat(d.most, d.reader)))
}

// disagreements reads the list, by mail.
func disagreements(t *testing.T) map[string]disagreement {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "judge.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]disagreement{}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 || f[3] == "" {
			t.Fatalf("testdata/judge.tsv: %q hasn't four columns", line)
		}
		d := out[f[0]]
		switch f[2] {
		case "most":
			d.most = strings.Fields(f[1])
		case "one":
			d.reader = strings.Fields(f[1])
		default:
			t.Fatalf("testdata/judge.tsv: %q of %q is neither most nor one", f[2], f[0])
		}
		out[f[0]] = d
	}
	return out
}
