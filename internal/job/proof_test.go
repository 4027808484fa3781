package job

import (
	"testing"

	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/internal/stages"
)

// Nobody knows the executable of a plugin that somebody else has started, and
// plugins that are stages take part as well.
func TestProgramsThatAreAttachedTo(t *testing.T) {
	t.Parallel()
	host, err := pluginhost.New(pluginhost.Options{
		Reattach: `{"pipeline-source-test": "/nowhere/s", "pipeline-stage-redact": "/nowhere/r"}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close(t.Context())
	j := &Job{
		host: host,
		described: map[string]pluginhost.Description{
			"source test": {Version: "1.2.3"}, "stage redact": {Version: "0.1.0"},
		},
		Plan: &plan.Plan{
			Sources: []plan.Source{{Plugin: "test"}, {Plugin: "test"}},
			Chain:   stages.NewChain([]*stages.Stage{{Name: "hide", Kind: stages.Plugin, Plugin: "redact"}}),
		},
	}
	got, err := j.Programs(t.Context())
	want := []Program{{"source test", "1.2.3", ""}, {"stage redact", "0.1.0", ""}}
	if err != nil || len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
