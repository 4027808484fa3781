package rules

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/demo"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(version: .*?)```")

// The repository's own pipeline and each whole file in its documentation load.
func TestOurFilesLoad(t *testing.T) {
	t.Parallel()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range []string{"pipeline.yaml", "README.md"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".yaml") {
			files[name] = string(text)
			continue
		}
		for _, m := range yamlBlock.FindAllStringSubmatch(string(text), -1) {
			files[name+": "+m[1][:40]] = m[1]
		}
	}
	if len(files) < 2 {
		t.Fatalf("found only %d files; has the README lost its example?", len(files))
	}
	for name, text := range files {
		if _, err := config.Parse(name, []byte(text)); err != nil {
			t.Errorf("%s:\n%v", name, err)
		}
	}
}

// What pipeline.yaml makes of the sample, as its comments and the README tell:
// trash and junk stay where they are, one mail is of another century.
func TestOurPipelineOverTheSample(t *testing.T) {
	t.Parallel()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	file, err := config.Load(filepath.Join(dir, "pipeline.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := demo.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	special := map[string][]string{"Trash": {"trash"}, "Junk": {"junk"}, "Sent": {"sent"}, "Drafts": {"drafts"}, "Archive": {"archive"}}
	run := file.Chain().NewRun(time.Now(), nil)
	got := map[string]int{}
	for _, m := range server.Messages() {
		if !file.Sources[0].Mailboxes.Match(message.Mailbox{Name: m.Mailbox, SpecialUse: special[m.Mailbox], Selectable: true}) {
			got["excluded"]++
			continue
		}
		header, _, _ := bytes.Cut(m.Octets, []byte("\r\n\r\n"))
		out := run.Judge(0, &message.Summary{
			ID:   message.ID{Source: "mail", Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: m.UID},
			Have: message.NeedSize | message.NeedHeaders, Size: int64(len(m.Octets)), Header: message.NewHeader(header),
		})
		switch out.Verdict {
		case stages.Kept:
			got["kept"]++
			got["undecided"] += len(out.Undecided)
		case stages.Dropped:
			got["dropped by "+out.Stage.Name]++
		default:
			t.Errorf("%s %d: verdict %v, needs %v: the listing has size and headers", m.Mailbox, m.UID, out.Verdict, out.Needs)
		}
	}
	want := map[string]int{"excluded": 2, "kept": 28, "undecided": 1, "dropped by this-century": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the sample through pipeline.yaml (-want +got):\n%s", diff)
	}
}
