package naming_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/cases"

	"github.com/mailhaul/pipeline/pkg/naming"
)

func TestTogether(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	for _, tt := range []struct{ in, want []string }{
		{[]string{"a.pdf", "A.PDF", "a.pdf"}, []string{"a.pdf", "A-2.PDF", "a-3.pdf"}},
		{[]string{"a-2.pdf", "a.pdf", "a.pdf"}, []string{"a-2.pdf", "a.pdf", "a-3.pdf"}},
		{[]string{"", ".", "a/b", "con", "x:y"}, []string{"_", "_-2", "a_b", "_con", "x_y"}},
		{[]string{"straße.txt", "STRASSE.txt"}, []string{"straße.txt", "STRASSE-2.txt"}},
		{[]string{long + ".docx", long + ".docx"}, []string{strings.Repeat("x", 35) + ".docx", strings.Repeat("x", 33) + "-2.docx"}},
		{[]string{"README", ".profile"}, []string{"README", ".profile"}},
	} {
		if diff := cmp.Diff(tt.want, naming.Together(tt.in, 40)); diff != "" {
			t.Errorf("%.80q: %s", tt.in, diff)
		}
	}
}

func FuzzTogether(f *testing.F) {
	f.Add("a.pdf\nA.pdf\na-2.pdf\n..\n\ncon.txt")
	f.Add(strings.Repeat("ü", 200) + ".ä\nÜ.txt\nu\u0308.txt")
	f.Fuzz(func(t *testing.T, list string) {
		in := strings.Split(list, "\n")
		got := naming.Together(in, 40)
		if !slices.Equal(got, naming.Together(in, 40)) {
			t.Error("a second time gives others")
		}
		seen := map[string]bool{}
		for i, name := range got {
			key := cases.Fold().String(name)
			if seen[key] || name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") || len(utf16.Encode([]rune(name))) > 41 || len(name) > naming.MaxElement {
				t.Errorf("%q became %q among %q", in[i], name, got)
			}
			seen[key] = true
		}
	})
}
