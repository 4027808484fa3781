// Package stages holds the built-in stages, and the chain that they form. Each
// kind has a folder of its own; the table is Kinds, and the switch in Build.
// To add a kind: its folder, a key in Config, a row in Kinds, a case in Build,
// and what it needs in Stage.
package stages

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages/attachments"
	"github.com/mailhaul/pipeline/internal/stages/dedupe"
	"github.com/mailhaul/pipeline/internal/stages/filter"
	"github.com/mailhaul/pipeline/internal/stages/header"
	"github.com/mailhaul/pipeline/internal/stages/limit"
	"github.com/mailhaul/pipeline/internal/stages/mailbox"
	"github.com/mailhaul/pipeline/internal/stages/tag"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// Unknown says what becomes of a message that a stage can't decide.
type Unknown string

// What can become of it.
const (
	UnknownKeep       Unknown = "keep" // and counted
	UnknownDrop       Unknown = "drop"
	UnknownDeadLetter Unknown = "dead_letter"
)

// OnError says what becomes of a message at which a stage fails.
type OnError string

// What can become of it.
const (
	OnErrorDeadLetter OnError = "dead_letter"
	OnErrorDrop       OnError = "drop"
	OnErrorStop       OnError = "stop"
)

// Stage is one stage of a run, built from its Config. It doesn't change, but
// for Spec and Identity of a plugin, which are filled in before a chain is
// made; what a run counts is in a Run.
type Stage struct {
	Name    string
	Kind    Kind
	Unknown Unknown
	OnError OnError

	Filter  *filter.Filter      // of filter and drop
	Limit   *limit.Config       // of limit
	Dedupe  dedupe.Mode         // of dedupe
	Header  *header.Edit        // of header
	Mailbox *mailbox.Rule       // of mailbox
	Strip   *attachments.Config // of attachments
	Tag     tag.Config          // of tag
	When    *expression.Program // of the five that leave messages alone; nil: none

	Plugin   string     // of plugin: its name
	Spec     stage.Spec // of plugin: what it said of its config
	Identity string     // of plugin: hash of its config

	config string // what it does, for the fingerprint
}

// Build makes a stage of a config that has been decoded. An expression's
// errors are joined; each is a fault.Config with Key filter, drop or when
// around an *expression.Error.
func Build(c Config, o filter.Options) (*Stage, error) {
	s := &Stage{Name: c.Name, Unknown: UnknownKeep, OnError: OnErrorDeadLetter}
	if c.Unknown != nil {
		s.Unknown = Unknown(*c.Unknown)
	}
	if c.OnError != nil {
		s.OnError = OnError(*c.OnError)
	}
	var ok bool
	if s.Kind, ok = c.Kind(); !ok {
		return nil, c.Validate()
	}
	var errs []error
	var does any
	fail := func(err error) {
		if err != nil {
			errs = append(errs, keyed(string(s.Kind), err))
		}
	}
	var err error
	switch s.Kind {
	case Filter:
		s.Filter, err = filter.Keep(*c.Filter, o)
	case Drop:
		s.Filter, err = filter.Drop(*c.Drop, o)
	case Limit:
		s.Limit, does = c.Limit, c.Limit
	case Dedupe:
		s.Dedupe, does = dedupe.Mode(*c.Dedupe), *c.Dedupe
	case Header:
		s.Header, err = header.New(*c.Header)
		does = c.Header
	case Mailbox:
		s.Mailbox, err = mailbox.New(*c.Mailbox)
		does = c.Mailbox
	case Attachments:
		s.Strip, does = c.Attachments, c.Attachments
	case Tag:
		s.Tag, does = c.Tag, c.Tag
		err = c.Tag.Validate()
	case Plugin:
		s.Plugin, does = *c.Plugin, *c.Plugin
	}
	fail(err)
	if c.When != nil {
		s.When, err = expression.Compile(*c.When, expression.Options{Location: o.Location, Vars: o.Vars})
		if err != nil {
			errs = append(errs, keyed("when", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.config = hash("does", mustJSON(does))
	return s, nil
}

// keyed puts errors below the stage's key of that kind.
func keyed(key string, err error) error {
	parts := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		parts = many.Unwrap()
	}
	for i, e := range parts {
		k := key
		if f := fault.As(e); f != nil && f.Key != "" {
			k += "." + f.Key
		}
		parts[i] = fault.New(fault.Config, "%w", e).WithKey(k)
	}
	return errors.Join(parts...)
}

// Pure reports whether the stage judges each message by itself, whatever came
// before, and without a process. One that doesn't is a barrier: it sees
// messages when all stages before it let them pass; a limit and a dedupe see
// them in the order of the listing.
func (s *Stage) Pure() bool { return s.Kind != Limit && s.Kind != Dedupe && s.Kind != Plugin }

// Notes reports whether the stage changes what later stages, sinks and names
// read of a message, and neither its octets nor its way.
func (s *Stage) Notes() bool { return s.Kind == Tag || s.Kind == Mailbox }

// Changes reports whether the stage can change octets.
func (s *Stage) Changes() bool {
	return s.Kind == Header || s.Kind == Attachments || s.Kind == Plugin && s.Spec.Changes
}

// Needs returns what the stage reads of a message.
func (s *Stage) Needs() message.Needs {
	var n message.Needs
	switch s.Kind {
	case Filter, Drop:
		n = s.Filter.Program.Needs()
	case Dedupe:
		n = message.NeedHeaders
	case Plugin:
		n = s.Spec.Needs
		if s.Spec.Changes || s.Spec.NeedsWhole {
			n |= message.NeedBody
		}
	}
	if s.When != nil {
		n |= s.When.Needs()
	}
	return n
}

// Programs returns the expressions of the stage.
func (s *Stage) Programs() []*expression.Program {
	var out []*expression.Program
	if s.Filter != nil {
		out = append(out, s.Filter.Program)
	}
	if s.When != nil {
		out = append(out, s.When)
	}
	return out
}

// ReadsNow reports whether the judgement depends on the time of the run: what
// it dropped is judged again in each (I8).
func (s *Stage) ReadsNow() bool {
	for _, p := range s.Programs() {
		if p.ReadsNow() {
			return true
		}
	}
	return false
}

// ReadsFlags reports whether it reads what can change on the server while the
// message stays: then what it dropped needs a new listing (I8).
func (s *Stage) ReadsFlags() bool {
	for _, p := range s.Programs() {
		if p.ReadsFlags() {
			return true
		}
	}
	return s.Kind == Plugin && s.Spec.Needs.Has(message.NeedFlags)
}

// Fingerprint is the same as long as the stage does the same.
func (s *Stage) Fingerprint() string {
	parts := []string{"stage 2", s.Name, string(s.Kind), string(s.Unknown), string(s.OnError), s.config, s.Identity}
	for _, p := range s.Programs() {
		parts = append(parts, p.Fingerprint())
	}
	return hash(parts...)
}

// Alter begins to change a message's octets. It reads b and returns what
// stands in its place; changed says whether an octet differs, and is known
// once the result was read to its end. Where the result is b itself, nothing was
// read of it but by b.Whole. Nothing but b's own errors and those of its spool
// come up. It is for header and attachments.
func (s *Stage) Alter(ctx context.Context, b *message.Body, spool *message.Spool) (_ *message.Body, changed func() bool, err error) {
	if s.Kind == Header {
		r := s.Header.Read(b)
		return message.NewBody(r, -1, spool), r.Changed, nil
	}
	whole, err := b.Whole(ctx)
	if err != nil {
		return nil, nil, err
	}
	r, size, did, err := attachments.Strip(ctx, s.Strip.Strip, whole)
	if err != nil {
		return nil, nil, err
	}
	if !did {
		return b, func() bool { return false }, nil
	}
	return message.NewBody(r, size, spool), func() bool { return true }, nil
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // configs are strings and numbers
	}
	return string(b)
}

func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(mustJSON(parts)))
	return hex.EncodeToString(sum[:16])
}

// terms returns what a filter or drop is made of.
func (s *Stage) terms() []*expression.Term {
	if s.Filter == nil {
		return nil
	}
	return s.Filter.Program.Terms
}

// Now is the time of a run, the same for every message of it: seconds are
// enough, and the same in the kept values.
func Now() time.Time { return time.Now().UTC().Truncate(time.Second) }
