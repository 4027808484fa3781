// Package stages holds the built-in stages, and the chain that they form. Each
// kind has a folder of its own; the table is Kinds, and the switch in Build.
// To add a kind: its folder, a key in Config, a row in Kinds, a case in Build,
// and what it needs in Stage.
package stages

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages/filter"
	"github.com/mailhaul/pipeline/internal/stages/limit"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Config is one stage as it stands in the file: a name, one kind, and what
// holds for every kind.
type Config struct {
	Name    string        `json:"name" required:"true" pattern:"[a-z0-9][a-z0-9._-]*" doc:"what totals and the report call the stage; unique" example:"recent"`
	Filter  *string       `json:"filter" doc:"an expression: messages for which it is true go on" example:"date >= now() - days(365) && size < 25 * MB"`
	Drop    *string       `json:"drop" doc:"an expression: messages for which it is true are dropped" example:"mailbox == \"Spam\""`
	Limit   *limit.Config `json:"limit" doc:"so many messages go on, in the order of the listing" example:"1000|{\"messages\": 100, \"per\": \"mailbox\"}"`
	Unknown *string       `json:"unknown" enum:"keep,drop,dead_letter" doc:"what becomes of a message that lacks a value which the expression needs; keep when left out"`
}

// Kind is a kind of stage: its key in the file.
type Kind string

// The kinds of stage.
const (
	Filter Kind = "filter"
	Drop   Kind = "drop"
	Limit  Kind = "limit"
)

// KindInfo describes a kind for the reference.
type KindInfo struct {
	Kind    Kind
	Summary string
	Pure    bool // it judges each message by itself
}

// Kinds returns the table of the built-in stages.
func Kinds() []KindInfo {
	return []KindInfo{
		{Filter, "lets pass the messages for which an expression is true", true},
		{Drop, "drops the messages for which an expression is true", true},
		{Limit, "lets so many messages pass, for each source or mailbox", false},
	}
}

// Kind returns the kind that is set; ok is false unless it is exactly one.
func (c *Config) Kind() (kind Kind, ok bool) {
	n := 0
	for k, set := range map[Kind]bool{Filter: c.Filter != nil, Drop: c.Drop != nil, Limit: c.Limit != nil} {
		if set {
			kind, n = k, n+1
		}
	}
	return kind, n == 1
}

// Validate says what tags can't.
func (c *Config) Validate() error {
	var kinds []string
	for _, k := range Kinds() {
		kinds = append(kinds, string(k.Kind))
	}
	kind, ok := c.Kind()
	if !ok {
		return fault.New(fault.Config, "a stage has a name and exactly one of %s", strings.Join(kinds, ", "))
	}
	if c.Unknown != nil && kind != Filter && kind != Drop {
		return fault.New(fault.Config, "a %s reads no values: unknown stands beside filter or drop only", kind).WithKey("unknown")
	}
	return nil
}

// Unknown says what becomes of a message that a filter can't decide.
type Unknown string

// What can become of it.
const (
	UnknownKeep       Unknown = "keep" // and counted
	UnknownDrop       Unknown = "drop"
	UnknownDeadLetter Unknown = "dead_letter"
)

// Stage is one stage of a run, built from its Config. It doesn't change: what
// a run counts is in a Run.
type Stage struct {
	Name    string
	Kind    Kind
	Unknown Unknown
	Filter  *filter.Filter // of filter and drop
	Limit   *limit.Config  // of limit
}

// Build makes a stage of a config that has been decoded. An expression's
// errors are joined; each is a fault.Config with Key filter or drop around an
// *expression.Error.
func Build(c Config, o filter.Options) (*Stage, error) {
	s := &Stage{Name: c.Name, Unknown: UnknownKeep}
	if c.Unknown != nil {
		s.Unknown = Unknown(*c.Unknown)
	}
	var ok bool
	if s.Kind, ok = c.Kind(); !ok {
		return nil, c.Validate()
	}
	var err error
	switch s.Kind {
	case Filter:
		s.Filter, err = filter.Keep(*c.Filter, o)
	case Drop:
		s.Filter, err = filter.Drop(*c.Drop, o)
	case Limit:
		s.Limit = c.Limit
	}
	if err != nil {
		return nil, keyed(string(s.Kind), err)
	}
	return s, nil
}

func keyed(key string, err error) error {
	parts := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		parts = many.Unwrap()
	}
	for i, e := range parts {
		parts[i] = fault.New(fault.Config, "%w", e).WithKey(key)
	}
	return errors.Join(parts...)
}

// Pure reports whether the stage judges each message by itself, whatever came
// before. A stage that doesn't is a barrier: it sees messages in the order of
// the listing, when all before it is decided.
func (s *Stage) Pure() bool { return s.Filter != nil }

// Needs returns what the stage reads of a message.
func (s *Stage) Needs() message.Needs {
	if s.Filter == nil {
		return 0
	}
	return s.Filter.Program.Needs()
}

// ReadsNow reports whether the judgement depends on the time of the run: what
// it dropped is judged again in each (I8).
func (s *Stage) ReadsNow() bool { return s.Filter != nil && s.Filter.Program.ReadsNow() }

// ReadsFlags reports whether it reads what can change on the server while the
// message stays: then what it dropped needs a new listing (I8).
func (s *Stage) ReadsFlags() bool { return s.Filter != nil && s.Filter.Program.ReadsFlags() }

// Fingerprint is the same as long as the stage does the same.
func (s *Stage) Fingerprint() string {
	var does string
	if s.Filter != nil {
		does = s.Filter.Program.Fingerprint()
	} else {
		does = fmt.Sprintf("%d per %s", s.Limit.Messages, s.Limit.Per)
	}
	return hash("stage 1", s.Name, string(s.Kind), string(s.Unknown), does)
}

func hash(parts ...string) string {
	b, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings always marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// terms returns what a pure stage is made of.
func (s *Stage) terms() []*expression.Term { return s.Filter.Program.Terms }

// Now is the time of a run, the same for every message of it: seconds are
// enough, and the same in the kept values.
func Now() time.Time { return time.Now().UTC().Truncate(time.Second) }
