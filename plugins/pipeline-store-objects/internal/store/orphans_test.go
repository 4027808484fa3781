package store_test

import (
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/target"
)

// The list of a pipeline whose target was taken over stays, also when the new
// one is taken over in turn, or killed before its first commit.
func TestWhatWasTakenOverIsSetAside(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		for n, pipeline := range []string{"first", "second", "second", "third"} {
			o.Pipeline, o.Adopt = pipeline, true
			files := open(t, path, o, nil)
			write(t, files, n+1, pipeline+".eml", octets(10))
			flush(t, files) // its ledger never hears of it
			if err := files.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var all strings.Builder
		for _, name := range []string{"manifest.orphaned.jsonl", "orphaned-manifest.jsonl", "orphaned-manifest-2.jsonl", "orphaned-manifest-3.jsonl"} {
			if b, err := held(t, path, o, target.Books+"/"+name); err == nil {
				all.Write(b)
			}
		}
		for _, want := range []string{"first.eml", "second.eml"} {
			if !strings.Contains(all.String(), want) {
				t.Errorf("%s isn't in what was set aside: %s", want, all.String())
			}
		}
	})
}
