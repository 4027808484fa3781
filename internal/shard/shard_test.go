package shard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// TestOfNeverChanges has values that must stay what they are: an account that
// fell to another shard would be exported again.
func TestOfNeverChanges(t *testing.T) {
	t.Parallel()
	counts := []int{1, 2, 3, 8, 100, 10_000}
	for account, want := range map[string][]int{
		"alice":           {0, 1, 2, 7, 7, 207},
		"bob":             {0, 0, 2, 2, 50, 8650},
		"ann@example.com": {0, 1, 0, 5, 53, 5453},
		"user0":           {0, 1, 0, 5, 13, 8213},
		"user1":           {0, 1, 0, 3, 31, 9331},
		"jörg":            {0, 0, 2, 6, 82, 6182},
		"":                {0, 0, 1, 4, 52, 1652},
	} {
		for i, count := range counts {
			got := Of(account, count)
			if got != (Shard{want[i], count}) || !got.Has(account) {
				t.Errorf("%q falls to %v, want %d/%d", account, got, want[i], count)
			}
			if other := (Shard{(want[i] + 1) % count, count}); count > 1 && other.Has(account) {
				t.Errorf("%q falls to %v too", account, other)
			}
		}
	}
	if !(Shard{}).Has("alice") {
		t.Error("without shards an account is left out")
	}
}

// TestAccountsAreSpread has 3,000 accounts divided about equally.
func TestAccountsAreSpread(t *testing.T) {
	t.Parallel()
	const accounts, shards = 3000, 8
	var have [shards]int
	for i := range accounts {
		have[Of("user"+string(rune('a'+i%26))+strings.Repeat("x", i/26), shards).Index]++
	}
	for i, n := range have {
		if n < accounts/shards*3/4 || n > accounts/shards*5/4 {
			t.Errorf("shard %d has %d of %d accounts", i, n, accounts)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want Shard
		err  string // "": none
	}{
		{"", Shard{}, ""},
		{"0/1", Shard{0, 1}, ""},
		{"2/3", Shard{2, 3}, ""},
		{"9999/10000", Shard{9999, 10000}, ""},
		{"3/3", Shard{}, "counted from 0: 0/3 to 2/3"},
		{"-1/3", Shard{}, "counted from 0: 0/3 to 2/3"},
		{"0/0", Shard{}, "expected 1 to 10000 shards"},
		{"0/10001", Shard{}, "expected 1 to 10000 shards"},
		{"1", Shard{}, "as in 0/3"},
		{"/3", Shard{}, "as in 0/3"}, // an index that isn't set
		{"a/3", Shard{}, "as in 0/3"},
		{"1/3/5", Shard{}, "as in 0/3"},
	} {
		got, err := Parse(c.text)
		if got != c.want || (err == nil) != (c.err == "") {
			t.Errorf("%q is %v, %v", c.text, got, err)
		}
		if f := fault.As(err); f != nil && (f.Class != fault.Config || !strings.Contains(f.Text+f.Hint, c.err)) {
			t.Errorf("%q: %v, hint %q, want %q", c.text, f, f.Hint, c.err)
		}
		if again, err := Parse(got.String()); again != got || err != nil {
			t.Errorf("%v is read again as %v, %v", got, again, err)
		}
	}
}

func TestNamesInPaths(t *testing.T) {
	t.Parallel()
	whole, part := Shard{}, Shard{0, 3}
	for _, c := range []struct{ got, want string }{
		{whole.Name(), ""},
		{whole.State("state"), "state"},
		{whole.InFile("reports/last.json"), "reports/last.json"},
		{part.Name(), "0-of-3"},
		{part.State("state"), filepath.Join("state", "shard-0-of-3")},
		{part.InFile("reports/last.json"), "reports/last.0-of-3.json"},
		{part.InFile("export/custody"), "export/custody.0-of-3"},
		{part.InFile(""), ""},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// TestCheck has pipelines that were run before, divided one way, and are now
// run another way (I2).
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		has  []string // ledgers
		now  Shard
		want string // of the error; "": none
	}{
		{"nothing yet", nil, Shard{1, 3}, ""},
		{"nothing yet, whole", nil, Shard{}, ""},
		{"the same", []string{"shard-0-of-3/acme.db"}, Shard{1, 3}, ""},
		{"whole again", []string{"acme.db"}, Shard{}, ""},
		{"whole before", []string{"acme.db"}, Shard{0, 3}, "was run whole"},
		{"shards before", []string{"shard-0-of-3/acme.db"}, Shard{}, "in 3 shards"},
		{"another number", []string{"shard-0-of-3/acme.db"}, Shard{0, 4}, "in 3 shards"},
		{"another pipeline", []string{"shard-0-of-3/other.db", "other.db"}, Shard{0, 4}, ""},
		{"other folders", []string{"shard-x/acme.db", "secrets/acme.db", "shard-0-of-x/acme.db"}, Shard{0, 4}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, name := range c.has {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := c.now.Check(dir, "acme")
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if f := fault.As(err); f != nil && (f.Class != fault.Config || f.Hint == "") {
				t.Errorf("class %v, hint %q", f.Class, f.Hint)
			}
		})
	}
	if err := (Shard{0, 3}).Check(filepath.Join(t.TempDir(), "none"), "acme"); err != nil {
		t.Errorf("without a state directory: %v", err)
	}
}
