package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/config"
)

const accounts = `version: 1
sources:
  - name: ${row:name}
    foreach: {csv: accounts.csv}
    plugin: imap
    config:
      address: ${row:host:-imap.example.com:993}
      password: ${exec:vault read ${row:name}}
      connections: ${row:lanes}
    vars: {custodian: "${row:Custodian Name}", of: "${env:DEPARTMENT:-all}"}
  - name: own
    plugin: imap
    config: {address: x}
stages:
  - {name: ann, filter: 'vars.custodian == "Ann"'}
sinks: [{name: b, plugin: eml}]
`

// withTable parses the file, with that text as its table.
func withTable(yaml, csv string) (*config.File, error) {
	return config.ParseWith(filepath.Join("jobs", "x.yaml"), []byte(yaml), func(path string) ([]byte, error) {
		if path != filepath.Join("jobs", "accounts.csv") {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(csv), nil
	})
}

func TestForeach(t *testing.T) {
	t.Parallel()
	for name, csv := range map[string]string{
		"plain":                "name,host,lanes,Custodian Name\nann,,3,Ann\nBob@Example.com,h:1,4,\"Bob \"\"B\"\"\nSmith, Jr.\"\n",
		"mark, CRLF, no end":   "\ufeffname,host,lanes,Custodian Name\r\nann,,3,Ann\r\nBob@Example.com,h:1,4,\"Bob \"\"B\"\"\nSmith, Jr.\"",
		"semicolons, empties":  "name;host;lanes;Custodian Name\n;;;\nann;;3;Ann\n\n\"Bob@Example.com\";h:1;4;\"Bob \"\"B\"\"\nSmith, Jr.\"\n;;;\n",
		"tabs, another column": "x\tname\thost\tlanes\tCustodian Name\n\tann\t\t3\tAnn\n\t Bob@Example.com \th:1\t4\t\"Bob \"\"B\"\"\nSmith, Jr.\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := withTable(accounts, csv)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Settle(t.Context(), values(nil)); err != nil {
				t.Fatal(err)
			}
			schema := imapSchema(t)
			var got []string
			for _, s := range f.Sources {
				if err := s.Config.CheckWith(schema); err != nil {
					t.Fatal(err)
				}
				r, err := s.Config.ResolveWith(t.Context(), schema, values(nil))
				if err != nil {
					t.Fatal(err)
				}
				password := ""
				if secret := r.Secrets["password"]; secret != nil {
					if password, err = secret(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				got = append(got, fmt.Sprintf("%s %q %q %s %s", s.Name, s.Vars["custodian"], s.Vars["of"], r.JSON, password))
			}
			want := []string{
				`ann "Ann" "all" {"address":"imap.example.com:993","password":{"$secret":"password"},"connections":3} ["vault" "read" "ann"]`,
				`bob@example.com "Bob \"B\"\nSmith, Jr." "all" {"address":"h:1","password":{"$secret":"password"},"connections":4} ["vault" "read" "Bob@Example.com"]`,
				`own "" "" {"address":"x"} `,
			}
			if strings.HasPrefix(name, "tabs") { // a name is trimmed, other values are the row's own
				want[1] = strings.Replace(want[1], `"Bob@Example.com"]`, `" Bob@Example.com "]`, 1)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if len(f.BadRows) > 0 {
				t.Error(f.BadRows)
			}
		})
	}
}

// A bad row is one bad row, with its line.
func TestBadRows(t *testing.T) {
	t.Parallel()
	f, err := withTable(accounts, strings.Join([]string{
		"name,host,lanes,Custodian Name",
		"ann,,3,Ann",
		"short,,3",
		",,3,nobody",
		"ANN,,3,twice",
		`bob,,3,"a quote that isn't closed`,
		`cyd,,3,a "quote" within`,
		"own,,3,a source's own name",
		"a b/c,,3,no name",
		"d\xffn,,3,latin",
		"eve,,3,\"a value",
		"of two lines\"",
		"fay,,3,the last",
	}, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	var good, bad []string
	for _, s := range f.Sources {
		good = append(good, strings.TrimSpace(s.Name+" "+s.Row))
	}
	for _, r := range f.BadRows {
		bad = append(bad, r.Error())
	}
	if diff := cmp.Diff([]string{"ann accounts.csv:2", "eve accounts.csv:11", "fay accounts.csv:13", "own"}, good); diff != "" {
		t.Error(diff)
	}
	words := "a name that begins with a letter a-z or a digit and goes on with those, dots, dashes, underscores, @ and +"
	if diff := cmp.Diff([]string{
		"accounts.csv:3: the row has 3 values, the header has 4",
		"accounts.csv:4: the row has no name",
		`accounts.csv:5: the name "ann" is taken by accounts.csv:2`,
		`accounts.csv:6: a quoted value isn't closed, or goes on behind its quote: write "" for a quote`,
		`accounts.csv:7: a quote stands within a value: put the whole value in quotes, and write "" for a quote`,
		`accounts.csv:8: the name "own" is taken by sources[1]`,
		`accounts.csv:9: the name "a b/c" isn't allowed: expected ` + words,
		"accounts.csv:10: the row isn't UTF-8: save the file as CSV in UTF-8",
	}, bad); diff != "" {
		t.Error(diff)
	}
}

// What a row gives is checked before it is used, and never shown (I9).
func TestRowsAreCheckedAgainstTheSchema(t *testing.T) {
	t.Parallel()
	f, err := withTable(accounts, "name,host,lanes,Custodian Name\nann,,many,x\nbob,,777,x\ncyd,,5,x\n")
	if err != nil {
		t.Fatal(err)
	}
	schema := imapSchema(t)
	var got []string
	for _, s := range f.Sources[:3] {
		if err := s.Config.Pattern().CheckWith(schema); err != nil {
			t.Errorf("as the file has it: %v", err)
		}
		check := s.Config.CheckWith(schema)
		_, resolve := s.Config.ResolveWith(t.Context(), schema, values(nil))
		if fmt.Sprint(check) != fmt.Sprint(resolve) {
			t.Errorf("checked: %v, resolved: %v", check, resolve)
		}
		got = append(got, fmt.Sprint(check))
	}
	if diff := cmp.Diff([]string{
		"accounts.csv:2: sources[0].config.connections: what the reference gives isn't allowed: expected a whole number",
		"accounts.csv:3: sources[0].config.connections: what the reference gives is out of range: expected at most 64",
		"<nil>",
	}, got); diff != "" {
		t.Error(diff)
	}
}

func TestForeachErrors(t *testing.T) {
	t.Parallel()
	table := "name,host,lanes,Custodian Name\nann,,3,Ann\n"
	tests := []struct {
		name, csv string
		old, new  string // in the file
		want      []string
	}{
		{"no table", table, "accounts.csv", "acounts.csv", []string{`4:20: sources[0].foreach.csv: read acounts.csv: file does not exist`}},
		{"an empty table", "\n", "", "", []string{`4:20: sources[0].foreach.csv: accounts.csv: it is empty: expected a header with the columns' names, and a row for each source`}},
		{"a header alone", "name,host,lanes,Custodian Name\n", "", "", []string{`4:20: sources[0].foreach.csv: accounts.csv has a header and no rows`}},
		{"a column without a name", "name,,host\n", "", "", []string{`4:20: sources[0].foreach.csv: accounts.csv: column 2 of the header has no name`}},
		{"a column twice", "name,name\n", "", "", []string{`4:20: sources[0].foreach.csv: accounts.csv: the header has two columns name`}},
		{"UTF-16", "\xff\xfen\x00", "", "", []string{`4:20: sources[0].foreach.csv: accounts.csv: it is UTF-16: save it as CSV in UTF-8`}},
		{"a column that isn't there", table, "${row:lanes}", "${row:lane}", []string{`9:20: sources[0].config.connections: accounts.csv has no column lane; did you mean "lanes"?`}},
		{"a column within a command", table, "read ${row:name}", "read ${row:x}", []string{`8:17: sources[0].config.password: accounts.csv has no column x; it has name, host, lanes, Custodian Name`}},
		{"one name for all", table, "name: ${row:name}", "name: all", []string{`3:11: sources[0].name: each row needs a name of its own: expected a reference to a column, as in ${row:name}`}},
		{"a name from elsewhere", table, "name: ${row:name}", "name: ${row:name}-${env:X}", []string{`3:11: sources[0].name: a name is made of the row alone: expected ${row:COLUMN}`}},
		{"a row without foreach", table, "config: {address: x}", "config: {address: '${row:host}'}", []string{`13:23: sources[1].config.address: ${row:…} stands only in a source with foreach`}},
		{"a misspelt key", table, "{csv: accounts.csv}", "{cvs: accounts.csv}", []string{
			`4:5: sources[0].foreach.csv: missing: expected a string`, `4:15: sources[0].foreach.cvs: unknown key; did you mean "csv"?`}},
		{"a mistake in each row", table, "connections: ${row:lanes}", "conections: ${row:lanes}", nil}, // said by CheckWith of the pattern
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := withTable(strings.Replace(accounts, tt.old, tt.new, 1), tt.csv)
			var got []string
			for _, p := range problems(err) {
				got = append(got, strings.TrimPrefix(p, filepath.Join("jobs", "x.yaml")+":"))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if tt.want == nil {
				if f == nil {
					t.Fatal(err)
				}
				if err := f.Sources[0].Config.Pattern().CheckWith(imapSchema(t)); err == nil || !strings.Contains(err.Error(), `x.yaml:9:7: sources[0].config.conections: unknown key; did you mean "connections"?`) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

// A row whose vars can't be had is a bad row; what the file itself gets wrong
// is the file's.
func TestSettleRows(t *testing.T) {
	t.Parallel()
	table := "name,host,lanes,Custodian Name\nx,,3,Ann\ny,,3,Bob\n"
	f, err := withTable(strings.Replace(accounts, "${env:DEPARTMENT:-all}", "${file:/run/secrets/${row:name}}", 1), table)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Settle(t.Context(), values(nil)); err != nil {
		t.Fatal(err)
	}
	if len(f.Sources) != 2 || f.Sources[0].Vars["of"] != "from the file" {
		t.Errorf("sources: %+v", f.Sources)
	}
	want := filepath.Join("jobs", "x.yaml") + ":10:52: sources[0].vars.of: read the file of ${file:/run/secrets/${row:name}}: file does not exist"
	if len(f.BadRows) != 1 || f.BadRows[0].At != "accounts.csv:3" || f.BadRows[0].Err.Error() != want {
		t.Errorf("bad rows: %v", f.BadRows)
	}
	var p config.Problem
	if len(f.BadRows) > 0 && !errors.As(f.BadRows[0].Err, &p) {
		t.Error("a bad row's error has no place")
	}
}

func FuzzTable(f *testing.F) {
	for _, s := range []string{"name,host,lanes,Custodian Name\nann,,3,Ann\n", "name\n\"a\nb\nc", "name;x\n\"\";\"\n", "\ufeffname\r\n\r\na\"b\r\n", "name\n\"a\"b\n\"c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, csv string) {
		f, err := withTable(strings.NewReplacer("${row:host:-imap.example.com:993}", "x", "${row:lanes}", "3", "${row:Custodian Name}", "x").Replace(accounts), csv)
		if err != nil {
			return
		}
		if n := len(f.Sources) - 1 + len(f.BadRows); n > strings.Count(csv, "\n")+1 {
			t.Errorf("%d rows of %d lines", n, strings.Count(csv, "\n")+1)
		}
		seen := map[string]bool{}
		for _, s := range f.Sources {
			if seen[s.Name] || s.Name == "" {
				t.Errorf("the name %q twice, or none", s.Name)
			}
			seen[s.Name] = true
		}
	})
}
