package config

import (
	"strings"
	"testing"
)

// TestRedacted: what the record of a run shows of the file holds no secret,
// wherever it stands (I9).
func TestRedacted(t *testing.T) {
	t.Parallel()
	f, err := Parse("x.yaml", []byte(`version: 1
sources:
  - name: alice
    plugin: imap
    config: {address: "x:1", password: hunter2, keys: [{token: hunter3}]}
  - name: bob
    plugin: imap
    config: {address: "x:2", password: "${env:BOB:-hunter4}"}
  - name: eve
    plugin: imap
    config: {address: "x:3", password: "${env:EVE}"}
  - name: mallory
    plugin: nobodys
    config: {address: "hunter5", nested: {password: hunter6, n: 7}}
sinks:
  - {name: archive, plugin: eml, config: {path: export}}
`))
	if err != nil {
		t.Fatal(err)
	}
	imap, err := ParseSchema([]byte(`{"type": "object", "properties": {"address": {"type": "string"}, "password": {"type": "string", "x-secret": true},
		"keys": {"type": "array", "items": {"type": "object", "properties": {"token": {"type": "string", "x-secret": true}}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	eml, err := ParseSchema([]byte(`{"type": "object", "properties": {"path": {"type": "string"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := string(f.Redacted(func(kind, plugin string) *PluginSchema {
		return map[string]*PluginSchema{"source imap": imap, "sink eml": eml}[kind+" "+plugin]
	}))
	if strings.Contains(got, "hunter") {
		t.Errorf("a secret stands in %s", got)
	}
	for _, want := range []string{`"address":"x:1"`, `"password":"${env:EVE}"`, `"path":"export"`, `"password":"(secret)"`, `"name":"mallory"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in %s", want, got)
		}
	}
}
