package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/mailhaul/pipeline/internal/demo"
)

// TestNothingChangesOnTheServer runs the repository's own file against the
// demo server, which counts what would change something (I7).
func TestNothingChangesOnTheServer(t *testing.T) {
	t.Parallel()
	server, err := demo.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	yaml, err := os.ReadFile("../../pipeline.yaml")
	if err != nil {
		t.Fatal(err)
	}
	j := newJob(t, string(yaml))
	j.env = append(j.env, server.Environ()...)
	for _, words := range []string{" written", "= 0 written"} {
		needs(t, j.run(0, "run").out, words)
	}
	if n := server.Changes(); n != 0 {
		t.Errorf("two runs made %d changes on the server", n)
	}
	octets := map[string]bool{}
	for _, m := range server.Messages() {
		octets[sum(m.Octets)] = true
	}
	files := mails(t, j.path("export/eml"))
	for name, s := range files {
		if !octets[s] {
			t.Errorf("%s isn't what the server has", name)
		}
	}
	if lines := index(t, j.path("export/index.jsonl")); len(lines) != len(files) || len(files) == 0 {
		t.Errorf("%d files and %d lines in the index", len(files), len(lines))
	}
}

// TestDemo is what `make demo` shows.
func TestDemo(t *testing.T) {
	t.Parallel()
	yaml, err := os.ReadFile("../../pipeline.yaml")
	if err != nil {
		t.Fatal(err)
	}
	j := newJob(t, string(yaml))
	o := j.run(0, "demo")
	needs(t, o.out, "A sample mailbox is served on 127.0.0.1:", "total: ", "export/index.jsonl")
	if o.err != "" {
		t.Errorf("stderr isn't empty: %s", o)
	}
	if files := mails(t, j.path("export/eml")); len(files) == 0 {
		t.Error("there are no mails")
	} else {
		needs(t, o.out, fmt.Sprintf("= %d written", len(files)))
	}
	again := j.run(0, "demo")
	needs(t, again.out, "= 0 written")
}

// TestThirdPartySink runs the example in a pipeline.
func TestThirdPartySink(t *testing.T) {
	t.Parallel()
	server, err := demo.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	j := newJob(t, fmt.Sprintf(`version: 1
sources:
  - name: mail
    plugin: imap
    config: {address: %q, security: none, username: %s, password: "${env:MAILHAUL_PASSWORD}"}
sinks:
  - {name: local, plugin: maildir, config: {path: export/maildir}}
  - {name: index, plugin: json, config: {path: export/index.jsonl}}
`, server.Addr(), demo.User))
	j.env = append(j.env, server.Environ()...)
	needs(t, j.run(2, "run").err, `there is no sink plugin "maildir"`, "--plugin-dir")
	o := j.run(0, "run", "--plugin-dir", j.bin.third)
	needs(t, o.out, fmt.Sprintf("= %d written", len(server.Messages())))
	files := mails(t, j.path("export/maildir"))
	octets := map[string]int{}
	for _, m := range server.Messages() {
		octets[sum(m.Octets)]++
	}
	for _, s := range files {
		octets[s]--
	}
	for s, left := range octets {
		if left != 0 {
			t.Errorf("the message with sha256 %s has %d files too few", s, left)
		}
	}
	for _, e := range index(t, j.path("export/index.jsonl")) {
		if files[e.Files["local"]] != e.SHA256 {
			t.Errorf("the index says that %s has sha256 %s, it has %s", e.Files["local"], e.SHA256, files[e.Files["local"]])
		}
	}
}
