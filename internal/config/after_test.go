package config_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/config"
)

func TestAfter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want *config.After
		errs []string
	}{
		{`{flag: '\Seen'}`, &config.After{Flag: `\Seen`, Only: "written", Batch: 200}, nil},
		{`{move: "Exported/2026", older_than: 7d, batch: 50}`, &config.After{Move: "Exported/2026", Only: "written", OlderThan: 7 * 24 * time.Hour, Batch: 50}, nil},
		{`{delete: true, older_than: 1d12h, only: written}`, &config.After{Delete: true, Only: "written", OlderThan: 36 * time.Hour, Batch: 200}, nil},
		{`{delete: true, rehash: true}`, &config.After{Delete: true, Only: "written", Rehash: true, Batch: 200}, nil},
		{`{delete: true, move: X}`, nil, []string{"1:85: sources[0].after: exactly one of flag, move and delete says what is done"}},
		{`{older_than: 7d}`, nil, []string{"1:85: sources[0].after: exactly one of flag, move and delete says what is done"}},
		{`{flag: "Seen it"}`, nil, []string{`1:92: sources[0].after.flag: "Seen it" is no flag: expected one as in \Seen or $Exported`}},
		{`{delete: true, only: all}`, nil, []string{`1:106: sources[0].after.only: "all" isn't allowed: expected one of written`}},
	} {
		f, err := config.Parse("x.yaml", []byte("{version: 1, sinks: [{name: b, plugin: eml}], sources: [{name: a, plugin: c, after: "+tt.text+"}]}"))
		if tt.want == nil {
			if diff := cmp.Diff(tt.errs, problems(err)); diff != "" {
				t.Errorf("%s: %s", tt.text, diff)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if diff := cmp.Diff(tt.want, f.Sources[0].After); diff != "" {
			t.Errorf("%s: %s", tt.text, diff)
		}
	}
}

// A mailbox that is done is looked at again when `after` is new, and only then.
func TestAfterIsPartOfTheSelection(t *testing.T) {
	t.Parallel()
	print := func(after string) string {
		f, err := config.Parse("x.yaml", []byte("{version: 1, sinks: [{name: b, plugin: eml}], sources: [{name: a, plugin: c"+after+"}]}"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := f.Sources[0].Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	none, moved, deleted := print(""), print(", after: {move: X}"), print(", after: {delete: true}")
	if sure := print(", after: {move: X, rehash: true}"); sure != moved {
		t.Errorf("rehash alone has mailboxes listed again: %s, %s", sure, moved)
	}
	if none == moved || moved == deleted || none != print("") {
		t.Errorf("fingerprints: %s, %s, %s", none, moved, deleted)
	}
}
