package stages

import (
	"encoding/json"
	"strings"

	"github.com/mailhaul/pipeline/internal/stages/attachments"
	"github.com/mailhaul/pipeline/internal/stages/header"
	"github.com/mailhaul/pipeline/internal/stages/limit"
	"github.com/mailhaul/pipeline/internal/stages/mailbox"
	"github.com/mailhaul/pipeline/internal/stages/tag"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// Config is one stage as it stands in the file: a name, one kind, and what
// holds for several kinds.
type Config struct {
	Name        string              `json:"name" required:"true" pattern:"[a-z0-9][a-z0-9._-]*" doc:"what totals and the report call the stage; unique" example:"recent"`
	Filter      *string             `json:"filter" doc:"an expression: messages for which it is true go on" example:"date >= now() - days(365) && size < 25 * MB"`
	Drop        *string             `json:"drop" doc:"an expression: messages for which it is true are dropped" example:"mailbox == \"Spam\""`
	Limit       *limit.Config       `json:"limit" doc:"so many messages go on, in the order of the listing" example:"1000|{\"messages\": 100, \"per\": \"mailbox\"}"`
	Dedupe      *string             `json:"dedupe" enum:"message_id,content" doc:"of several copies of a message one goes on: message_id compares Message-ID, Date, From and Subject, content all octets"`
	Header      *header.Config      `json:"header" doc:"edits fields of the header"`
	Mailbox     *mailbox.Config     `json:"mailbox" doc:"says where messages land; their ids stay"`
	Attachments *attachments.Config `json:"attachments" doc:"strip takes attachments out, and leaves a text in their place" example:"\"strip\"|{\"strip\": {\"media_types\": [\"video/*\"], \"min_size\": \"10MB\"}}"`
	Tag         tag.Config          `json:"tag" doc:"words that the messages carry from here on, as vars.NAME in expressions and {vars.NAME} in file names, and in the index" example:"{\"team\": \"sales\"}"`
	Plugin      *string             `json:"plugin" pattern:"[a-z0-9][a-z0-9-]*" doc:"NAME of the executable pipeline-stage-NAME, which judges or changes each message" example:"redact"`
	Config      json.RawMessage     `json:"config" doc:"the plugin's own keys; values may hold references"`
	When        *string             `json:"when" doc:"an expression: header, mailbox, attachments, tag and plugin leave messages alone for which it is false" example:"mailbox startsWith \"Projects\""`
	Unknown     *string             `json:"unknown" enum:"keep,drop,dead_letter" doc:"what becomes of a message that lacks a value which the stage needs; keep when left out"`
	OnError     *string             `json:"on_error" enum:"drop,dead_letter,stop" doc:"what becomes of a message at which attachments or a plugin fails; dead_letter when left out"`
}

// Kind is a kind of stage: its key in the file.
type Kind string

// The kinds of stage.
const (
	Filter      Kind = "filter"
	Drop        Kind = "drop"
	Limit       Kind = "limit"
	Dedupe      Kind = "dedupe"
	Header      Kind = "header"
	Mailbox     Kind = "mailbox"
	Attachments Kind = "attachments"
	Tag         Kind = "tag"
	Plugin      Kind = "plugin"
)

// KindInfo describes a kind for the reference.
type KindInfo struct {
	Kind    Kind
	Summary string
	Pure    bool   // it judges each message by itself
	Octets  string // whether it changes octets: yes, no, or what that hangs on
	Takes   []string
}

// Kinds returns the table of the built-in stages.
func Kinds() []KindInfo {
	return []KindInfo{
		{Filter, "lets pass the messages for which an expression is true", true, "no", []string{"unknown"}},
		{Drop, "drops the messages for which an expression is true", true, "no", []string{"unknown"}},
		{Limit, "lets so many messages pass, for each source or mailbox", false, "no", nil},
		{Dedupe, "lets one of several copies pass, over all sources and runs", false, "no", nil},
		{Header, "sets, adds, removes and renames fields of the header", true, "yes", []string{"when", "unknown"}},
		{Mailbox, "says where messages land: file names follow it, ids don't", true, "no", []string{"when", "unknown"}},
		{Attachments, "strips attachments, and says in their place what was there", true, "yes", []string{"when", "unknown", "on_error"}},
		{Tag, "gives messages words of your own", true, "no", []string{"when", "unknown"}},
		{Plugin, "has a plugin judge or change each message", true, "if the plugin does", []string{"config", "when", "unknown", "on_error"}},
	}
}

// kinds returns which kinds are set.
func (c *Config) kinds() []Kind {
	var out []Kind
	for _, k := range []struct {
		kind Kind
		set  bool
	}{
		{Filter, c.Filter != nil}, {Drop, c.Drop != nil}, {Limit, c.Limit != nil}, {Dedupe, c.Dedupe != nil},
		{Header, c.Header != nil}, {Mailbox, c.Mailbox != nil}, {Attachments, c.Attachments != nil},
		{Tag, c.Tag != nil}, {Plugin, c.Plugin != nil},
	} {
		if k.set {
			out = append(out, k.kind)
		}
	}
	return out
}

// Kind returns the kind that is set; ok is false unless it is exactly one.
func (c *Config) Kind() (kind Kind, ok bool) {
	set := c.kinds()
	if len(set) != 1 {
		return "", false
	}
	return set[0], true
}

// Validate says what tags can't.
func (c *Config) Validate() error {
	kind, ok := c.Kind()
	if !ok {
		var kinds []string
		for _, k := range Kinds() {
			kinds = append(kinds, string(k.Kind))
		}
		return fault.New(fault.Config, "a stage has a name and exactly one of %s", strings.Join(kinds, ", "))
	}
	for _, key := range []struct {
		name string
		set  bool
	}{{"config", c.Config != nil}, {"when", c.When != nil}, {"unknown", c.Unknown != nil}, {"on_error", c.OnError != nil}} {
		if !key.set || takes(kind, key.name) {
			continue
		}
		var may []string
		for _, k := range Kinds() {
			if takes(k.Kind, key.name) {
				may = append(may, string(k.Kind))
			}
		}
		return fault.New(fault.Config, "%s stands beside %s only, not beside %s", key.name, strings.Join(may, ", "), kind).WithKey(key.name)
	}
	if c.Unknown != nil && c.When == nil && kind != Filter && kind != Drop && kind != Plugin {
		return fault.New(fault.Config, "without when a %s reads no values that could be absent", kind).WithKey("unknown")
	}
	return nil
}

func takes(kind Kind, key string) bool {
	for _, k := range Kinds() {
		if k.Kind == kind {
			for _, t := range k.Takes {
				if t == key {
					return true
				}
			}
		}
	}
	return false
}
