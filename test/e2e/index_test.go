package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// entry is what the tests read of a line of the index.
type entry struct {
	ID              string
	Mailbox         string
	UID             uint32
	MessageID       string `json:"message_id"`
	Subject         string
	ListUnsubscribe string `json:"list_unsubscribe"`
	Attachments     []struct{ Name string }
	Octets          int64
	SHA256          string
	Files           map[string]string
	ChangedBy       []string `json:"changed_by"`
	LandsIn         string   `json:"lands_in"`
	Vars            map[string]string
	line            string
}

// index reads an index and holds each line against the published schema. No
// two lines may be of one message.
func index(t *testing.T, path string) map[string]entry {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("../../docs/reference/index.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]entry{}
	for line := range bytes.Lines(b) {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		e := entry{line: string(line)}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if _, twice := out[e.ID]; twice {
			t.Errorf("%s stands twice in the index", e.ID)
		}
		out[e.ID] = e
	}
	return out
}
