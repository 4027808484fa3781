package limit_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/stages/limit"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw  string
		want limit.Config
		err  string // a part of it; empty: none
	}{
		{"1000", limit.Config{Messages: 1000, Per: "source"}, ""},
		{" 1 ", limit.Config{Messages: 1, Per: "source"}, ""},
		{`{"messages":5}`, limit.Config{Messages: 5, Per: "source"}, ""},
		{`{"messages":5,"per":"source"}`, limit.Config{Messages: 5, Per: "source"}, ""},
		{` {"per":"mailbox","messages":5}`, limit.Config{Messages: 5, Per: "mailbox"}, ""},
		{"0", limit.Config{}, "a whole number of 1 or more"},
		{"-3", limit.Config{}, "a whole number of 1 or more"},
		{"1.5", limit.Config{}, "a whole number of 1 or more"},
		{`"10"`, limit.Config{}, "a whole number of 1 or more"},
		{"[1]", limit.Config{}, "a whole number of 1 or more"},
		{"true", limit.Config{}, "a whole number of 1 or more"},
		{`{"messages":0}`, limit.Config{}, "messages: 0 is out of range"},
		{`{"per":"mailbox"}`, limit.Config{}, "messages: missing"},
		{`{"messages":1,"per":"mailboxes"}`, limit.Config{}, `did you mean "mailbox"?`},
		{`{"message":1}`, limit.Config{}, `did you mean "messages"?`},
	}
	for _, tt := range tests {
		t.Run(tt.raw, func(t *testing.T) {
			t.Parallel()
			var got limit.Config
			err := json.Unmarshal([]byte(tt.raw), &got)
			if tt.err != "" {
				if !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want a Config fault with %q", err, tt.err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Error(diff, err)
			}
		})
	}
}

// TestConfigSchema: what an editor allows is what the program reads.
func TestConfigSchema(t *testing.T) {
	t.Parallel()
	schema, err := spec.SchemaOf(struct {
		Limit limit.Config `json:"limit" doc:"a limit"`
	}{})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"oneOf"`, `"minimum":1`, `"mailbox"`, `"messages"`} {
		if !strings.Contains(strings.ReplaceAll(string(schema), " ", ""), part) {
			t.Errorf("the schema lacks %s: %s", part, schema)
		}
	}
}

func TestCounter(t *testing.T) {
	t.Parallel()
	asked := []struct{ source, mailbox string }{
		{"a", "X"}, {"a", "X"}, {"a", "Y"}, {"b", "X"}, {"a", "X"}, {"a", "Y"}, {"b", "Y"}, {"b", "Y"}, {"a", "Y"},
	}
	for per, want := range map[string]string{
		"source":  "yes yes no yes no no yes no no",
		"mailbox": "yes yes yes yes no yes yes yes no",
	} {
		t.Run(per, func(t *testing.T) {
			t.Parallel()
			c := limit.NewCounter(limit.Config{Messages: 2, Per: per})
			var got []string
			for _, q := range asked {
				full := c.Full(q.source, q.mailbox)
				word := "no"
				if c.Admit(q.source, q.mailbox) {
					word = "yes"
				}
				if full != (word == "no") {
					t.Errorf("%v: full is %v, and the answer %s", q, full, word)
				}
				got = append(got, word)
			}
			if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
