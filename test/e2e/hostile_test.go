package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hostMost is what the host may hold of memory whatever a plugin does, in KiB.
const hostMost = 256 << 10

// hostilePlugins puts the plugin that misbehaves beside the job under the names
// that it goes by: a source and a sink that do as they are told, and a source
// that only does what it should.
func (j *job) hostilePlugins() {
	j.t.Helper()
	dir := j.path("plugins")
	if err := os.Mkdir(dir, 0o755); err != nil {
		j.t.Fatal(err)
	}
	built := filepath.Join(j.bin.third, "pipeline-source-hostile")
	for _, name := range []string{"pipeline-source-hostile", "pipeline-source-good", "pipeline-sink-hostile"} {
		if err := os.Symlink(built, filepath.Join(dir, name)); err != nil {
			j.t.Fatal(err)
		}
	}
	j.env = append(j.env, "PIPELINE_PLUGIN_PATH="+dir, "PIPELINE_PLUGIN_SILENCE=8s")
}

// TestHostilePlugins: whatever a plugin does, the run ends, in bounded memory,
// says which plugin did what, and what has nothing to do with it is exported.
func TestHostilePlugins(t *testing.T) {
	t.Parallel()
	const each, some = 20, -1
	for _, tt := range []struct {
		name   string
		source string // what the source does
		sink   string // what a third sink does; empty: there is none
		file   string // more keys of the source
		code   int
		wrote  int      // of the 20 mails of the hostile source; some: as many as came before the trouble
		says   []string // on stderr
	}{
		{name: "well behaved", wrote: each},
		{name: "floods its outputs", source: "flood", wrote: each, says: []string{"lines left out"}},
		{name: "a trickle", source: "trickle", wrote: each},

		{name: "dies in Open", source: "open:die", code: 4, says: []string{"ended with exit code 3", "plugin hostile"}},
		{name: "dies in Mailboxes", source: "mailboxes:die", code: 4, says: []string{"ended with exit code 3", "plugin hostile"}},
		{name: "dies in List", source: "list:die", code: 4, says: []string{"ended with exit code 3", "plugin hostile"}},
		{name: "dies in Fetch", source: "fetch:die", code: 4, says: []string{"ended with exit code 3", "plugin hostile"}},
		{name: "dies of a message", source: "message:die", code: 3, wrote: each - 1, says: []string{"plugin hostile"}},
		{name: "dies in Finish", source: "finish:die", file: "    after: {delete: true}\n", code: 4, wrote: each, says: []string{"ended with exit code 3", "plugin hostile"}},
		{name: "dies in Close", source: "close:die", wrote: each},

		{name: "hangs in Open", source: "open:hang", code: 4, says: []string{"plugin hostile", "didn't go on with Open of bad for 8s"}},
		{name: "hangs in Mailboxes", source: "mailboxes:hang", code: 4, says: []string{"plugin hostile", "didn't go on with Mailboxes"}},
		{name: "hangs in List", source: "list:hang", code: 4, says: []string{"plugin hostile", "didn't go on with List"}},
		{name: "hangs at a message", source: "message:hang", code: 3, wrote: each - 1, says: []string{"plugin hostile", "didn't go on with Fetch"}},
		{name: "hangs in a body", source: "body:hang", code: 3, wrote: each - 1, says: []string{"plugin hostile", "didn't go on with Fetch"}},
		{name: "hangs in Finish", source: "finish:hang", file: "    after: {delete: true}\n", code: 4, wrote: each, says: []string{"plugin hostile", "didn't go on with Finish"}},

		{name: "mailboxes without end", source: "mailboxes:endless", code: 4, says: []string{"plugin hostile lists more than", "mailboxes"}},
		{name: "the same page for ever", source: "list:again", code: 4, wrote: some, says: []string{"plugin hostile lists", "again and again"}},
		{name: "one message twice", source: "list:same", code: 4, says: []string{"plugin hostile lists", "twice"}},
		{name: "a page without end", source: "list:endless", code: 4, says: []string{"plugin hostile lists", "more than was asked for"}},
		{name: "headers of a megabyte", source: "list:headers", code: 0},
		{name: "claims 2⁶³", source: "claims", code: 4, wrote: some, says: []string{"hostile"}},

		{name: "a wrong checksum", source: "frame:checksum", code: 4, wrote: some, says: []string{"plugin hostile", "CRC-32C"}},
		{name: "wrong lengths", source: "frame:lengths", code: 4, wrote: some, says: []string{"plugin hostile", "octets"}},
		{name: "octets of no message", source: "frame:nobody", code: 4, wrote: some, says: []string{"plugin hostile", "belongs to no message"}},
		{name: "garbage", source: "frame:garbage", code: 4, wrote: some, says: []string{"plugin hostile"}},
		{name: "a body longer than announced", source: "body:longer", code: 4, wrote: some, says: []string{"plugin hostile"}},
		{name: "a message that nobody asked for", source: "id:stranger", code: 4, wrote: some, says: []string{"plugin hostile"}},
		{name: "an answer twice", source: "id:twice", code: 4, wrote: some, says: []string{"plugin hostile"}},
		{name: "finishes what nobody asked for", source: "finish:stranger", file: "    after: {delete: true}\n", code: 4, wrote: each, says: []string{"plugin hostile", "wasn't asked to"}},
		{name: "finishes without a word", source: "finish:mute", file: "    after: {delete: true}\n", code: 4, wrote: each, says: []string{"plugin hostile", "didn't say what became of"}},

		{name: "a sink that dies in Prepare", sink: "prepare:die", code: 1, says: []string{"plugin hostile", "ended with exit code 3"}},
		{name: "a sink that hangs in Prepare", sink: "prepare:hang", code: 1, says: []string{"plugin hostile", "didn't go on with Prepare"}},
		{name: "a sink that dies in Open", sink: "open:die", code: 1, wrote: each, says: []string{"ended with exit code 3", "sink third"}},
		{name: "a sink that hangs in Open", sink: "open:hang", code: 1, wrote: each, says: []string{"sink third", "didn't go on with Open of third"}},
		{name: "a sink that dies of a message", sink: "write:die", code: 3, wrote: each, says: []string{"ended with exit code 3"}},
		{name: "a sink that hangs at a message", sink: "write:hang", code: 3, wrote: each, says: []string{"plugin hostile", "didn't go on with Write"}},
		{name: "a sink that dies in Flush", sink: "flush:die", code: 1, wrote: each, says: []string{"sink third", "ended with exit code 3"}},
		{name: "a sink that hangs in Flush", sink: "flush:hang", code: 1, wrote: each, says: []string{"sink third", "didn't go on with Flush"}},
		{name: "a sink that dies in Close", sink: "close:die", code: 0, wrote: each},
		{name: "a sink that floods its outputs", sink: "flood", wrote: each, says: []string{"lines left out"}},
		{name: "answers to nothing", sink: "answer:more", code: 1, wrote: each, says: []string{"plugin hostile answered a message that wasn't put"}},
		{name: "a path outside", sink: "answer:path", wrote: each},
		{name: "a count of 2⁶³", sink: "answer:octets", wrote: each},
		{name: "a checkpoint of 128 MiB", sink: "flush:checkpoint", wrote: each, code: 1, says: []string{"sink third"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			third := ""
			if tt.sink != "" {
				third = fmt.Sprintf("  - {name: third, plugin: hostile, on_failure: continue, config: {path: %q, do: %q}}\n", "/nowhere", tt.sink)
			}
			filter := ""
			if tt.source == "list:headers" {
				filter = "stages:\n  - {name: none, filter: 'subject == \"x\"'}\n"
			}
			j := newJob(t, fmt.Sprintf(`version: 1
name: hostile
state: state
sources:
  - {name: good, plugin: good, config: {path: mails}}
  - name: bad
    plugin: hostile
    config: {path: mails, do: %q}
%s%ssinks:
  - {name: archive, plugin: eml, config: {path: export/eml}}
  - {name: index, plugin: json, config: {path: export/index.jsonl}}
%s`, tt.source, tt.file, filter, third))
			j.hostilePlugins()
			if err := os.Mkdir(j.path("mails"), 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range each {
				raw := fmt.Appendf(nil, "From: a@example.com\r\nSubject: mail %d\r\nMessage-ID: <%d@example.com>\r\n\r\n%s\r\n", i, i, strings.Repeat("x", 50*i))
				if err := os.WriteFile(j.path("mails", fmt.Sprintf("%02d.eml", i)), raw, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			o := j.start("run").wait()
			t.Logf("after %s, %d MiB resident, %d octets on stderr", o.took, o.peaks["pipeline"]>>10, len(o.err))
			if o.code != tt.code {
				t.Errorf("exit code %d, want %d", o.code, tt.code)
			}
			for _, w := range tt.says {
				if !strings.Contains(o.err, w) {
					t.Errorf("%q isn't said", w)
				}
			}
			if len(o.err) > 1<<20 {
				t.Errorf("%d octets are said", len(o.err))
			}
			if peak := o.peaks["pipeline"]; peak > hostMost {
				t.Errorf("the host had %d KiB resident, more than %d", peak, hostMost)
			}
			wrote := map[string]int{}
			if _, err := os.Stat(j.path("export/eml")); err == nil {
				for name := range mails(t, j.path("export/eml")) {
					source, _, _ := strings.Cut(name, "/")
					wrote[source]++
				}
			}
			good := each
			switch {
			case strings.HasPrefix(tt.sink, "prepare"), filter != "":
				good = 0
			}
			if wrote["good"] != good || tt.wrote != some && wrote["bad"] != tt.wrote {
				t.Errorf("%v mails are written, want %d of the good source and %d of the hostile one", wrote, good, tt.wrote)
			}
			if t.Failed() {
				t.Logf("exit code %d\n%s%.6000s", o.code, o.out, o.err)
			}
		})
	}
}
