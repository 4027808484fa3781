package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// schema returns what `pipeline schema` prints, ready to check with.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir, err := plugins()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := execute(t.Context(), []string{"schema", "--plugin-dir", dir}, stdio{in: strings.NewReader(""), out: &out, err: &errs}); code != 0 || errs.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	doc, err := jsonschema.UnmarshalJSON(&out)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mem:///file", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:///file")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instance reads YAML as an editor does for a schema.
func instance(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestExamplesFitTheSchema checks each pipeline file of the repository by the
// schema that editors get, and that the schema line is there.
func TestExamplesFitTheSchema(t *testing.T) {
	t.Parallel()
	s := schema(t)
	files, err := filepath.Glob("../../examples/*/pipeline.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range append(files, "../../pipeline.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(instance(t, text)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if first, _, _ := strings.Cut(string(text), "\n"); strings.Contains(file, "examples") && first != "# yaml-language-server: $schema=../pipeline.schema.json" {
			t.Errorf("%s: the first line is %q, and no editor finds the schema", file, first)
		}
	}
}

// TestSchemaRefuses: what lint refuses, an editor underlines; a reference may
// stand for any value of a plugin's config.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	s := schema(t)
	good := `
version: 1
sources:
  - {name: a, plugin: imap, config: {address: x, username: u, password: "${env:P}", connections: "${env:N}", security: "${env:S}", timeouts: {read: "${env:T:-2m}"}}}
  - {name: b, plugin: jmap, config: {anything: goes}}
stages:
  - {name: s, filter: size < 3}
  - {name: l, limit: {messages: 3, per: mailbox}}
sinks:
  - {name: o, plugin: eml, config: {path: x}}
`
	for name, tc := range map[string]struct {
		old, new string
		right    bool
	}{
		"right":                              {"", "", true},
		"a plugin's unknown key":             {"address: x", "adress: x", false},
		"a plugin's wrong type":              {`"${env:N}"`, "many", false},
		"a plugin's wrong word":              {`"${env:S}"`, "ssl", false},
		"a plugin's wrong duration":          {`"${env:T:-2m}"`, "soon", false},
		"a plugin's missing config":          {", config: {path: x}", "", false},
		"a plugin's missing key":             {"{path: x}", "{}", false},
		"an unknown key at the top":          {"stages:", "stage:", false},
		"an unknown key of a source":         {"plugin: imap,", "plugin: imap, ordr: newest,", false},
		"a stage without a name":             {"{name: s, ", "{", false},
		"a version that isn't ours (a text)": {"version: 1", "version: one", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(good, tc.old, tc.new, 1)
			if err := s.Validate(instance(t, []byte(text))); (err == nil) != tc.right {
				t.Errorf("right is %v, the schema says: %v", tc.right, err)
			}
		})
	}
}
