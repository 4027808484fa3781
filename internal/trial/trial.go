// Package trial takes messages through the stages and routes of a pipeline,
// without a server, a sink or a ledger, and says what became of each: for
// `pipeline test`.
package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// Trial is a pipeline on trial.
type Trial struct {
	File *config.File
	Now  time.Time
	// Open opens a session of a stage that is a plugin.
	Open func(ctx context.Context, s *stages.Stage) (stage.Stage, error)
}

// Outcome is what became of a message.
type Outcome struct {
	Verdicts map[string]string // by stage; the words of config.Verdicts
	Why      map[string]string // by stage: what it read, where it says no or can't tell
	Sinks    []string          // that it reaches, in the order of the file
	Vars     map[string]string
	LandsIn  string
}

// Run takes one message through. A limit and a dedupe let it pass: they count
// and compare messages, and this is one. An error is the plugin's or ctx's.
func (t *Trial) Run(ctx context.Context, c *config.Case) (*Outcome, error) {
	m, err := t.message(c)
	if err != nil {
		return nil, err
	}
	out := &Outcome{Verdicts: map[string]string{}, Why: map[string]string{}}
	gone := false
	for _, s := range t.File.Stages {
		if gone {
			out.Verdicts[s.Name] = "unreached"
			continue
		}
		verdict, why, err := t.stage(ctx, s, m)
		if err != nil {
			return nil, fmt.Errorf("stage %s: %w", s.Name, err)
		}
		out.Verdicts[s.Name], out.Why[s.Name] = verdict, why
		gone = verdict == "drop" || verdict == "dead_letter"
	}
	out.Vars, out.LandsIn = m.Vars, m.Landing()
	if gone {
		return out, nil
	}
	for i := range t.File.Sinks {
		s := &t.File.Sinks[i]
		if routed, _ := s.Routes(&m.Summary, t.Now); routed {
			out.Sinks = append(out.Sinks, s.Name)
		}
	}
	return out, nil
}

// message makes the message that a source would give, with all that can be
// known of it.
func (t *Trial) message(c *config.Case) (*message.Message, error) {
	m := &message.Message{Body: message.BodyOf(c.Octets)}
	m.ID = message.ID{Source: c.Source, Mailbox: c.Mailbox, UIDValidity: 1, UID: c.UID}
	m.Have = message.AllSummary
	m.Size, m.InternalDate, m.Labels = c.Size, c.InternalDate, slices.Sorted(slices.Values(c.Labels))
	if m.Size < 0 {
		m.Size = int64(len(c.Octets))
	}
	for _, f := range slices.Sorted(slices.Values(c.Flags)) {
		if strings.HasPrefix(f, `\`) {
			m.Flags = append(m.Flags, f)
		} else {
			m.Keywords = append(m.Keywords, f)
		}
	}
	m.Vars = map[string]string{}
	for i := range t.File.Sources {
		if t.File.Sources[i].Name == c.Source {
			maps.Copy(m.Vars, t.File.Sources[i].Vars)
		}
	}
	maps.Copy(m.Vars, c.Vars)
	m.Header = message.NewHeader(headerOf(c.Octets))
	var err error
	m.Structure, _, err = message.ReadStructure(bytes.NewReader(c.Octets))
	return m, err
}

func headerOf(octets []byte) []byte {
	for _, empty := range []string{"\r\n\r\n", "\n\n"} {
		if head, _, ok := bytes.Cut(octets, []byte(empty)); ok {
			return octets[:len(head)+len(empty)]
		}
	}
	return octets
}

// stage takes the message through one stage.
func (t *Trial) stage(ctx context.Context, s *stages.Stage, m *message.Message) (verdict, why string, err error) {
	if s.Filter != nil {
		value, undecided, _ := s.Filter.Program.Eval(&m.Summary, t.Now)
		switch {
		case undecided:
			return unknown(s), t.read(s.Filter.Program, m), nil
		case !value:
			return "drop", t.read(s.Filter.Program, m), nil
		}
		return "keep", "", nil
	}
	if s.When != nil {
		value, undecided, _ := s.When.Eval(&m.Summary, t.Now)
		if undecided {
			return unknown(s), t.read(s.When, m), nil
		}
		if !value {
			return "keep", "its `when` is false: " + t.read(s.When, m), nil
		}
	}
	switch s.Kind {
	case stages.Tag:
		m.Vars = s.Tag.Apply(m.Vars)
	case stages.Mailbox:
		m.LandsIn = s.Mailbox.Apply(m.Landing())
	case stages.Header, stages.Attachments:
		return t.alter(ctx, s, m)
	case stages.Plugin:
		return t.plugin(ctx, s, m)
	}
	return "keep", "", nil
}

func unknown(s *stages.Stage) string {
	if s.Unknown == stages.UnknownKeep {
		return "undecided"
	}
	return string(s.Unknown)
}

func (t *Trial) alter(ctx context.Context, s *stages.Stage, m *message.Message) (verdict, why string, err error) {
	before, err := io.ReadAll(m.Body)
	if err != nil {
		return "", "", err
	}
	altered, _, err := s.Alter(ctx, message.BodyOf(before), nil)
	if err != nil {
		return "", "", err
	}
	after, err := io.ReadAll(altered)
	if err != nil {
		return "", "", err
	}
	m.Body = message.BodyOf(after)
	if bytes.Equal(before, after) {
		return "keep", "", nil
	}
	return "change", "", nil
}

func (t *Trial) plugin(ctx context.Context, s *stages.Stage, m *message.Message) (verdict, why string, err error) {
	session, err := t.Open(ctx, s)
	if err != nil {
		return "", "", err
	}
	defer session.Close()
	before, err := io.ReadAll(m.Body)
	if err != nil {
		return "", "", err
	}
	given := message.BodyOf(before)
	asked := *m
	asked.Body = given
	if !s.Needs().Has(message.NeedBody) {
		asked.Body, given = nil, nil
	}
	v, err := session.Apply(ctx, &asked)
	m.Body = message.BodyOf(before)
	if err != nil {
		switch s.OnError {
		case stages.OnErrorStop:
			return "", "", err
		case stages.OnErrorDrop:
			return "drop", err.Error(), nil
		}
		return "dead_letter", err.Error(), nil
	}
	m.Vars, m.LandsIn = asked.Vars, asked.LandsIn
	word := "keep"
	if asked.Body != given && asked.Body != nil {
		after, err := io.ReadAll(asked.Body)
		if err != nil {
			return "", "", err
		}
		m.Body = message.BodyOf(after)
		if !bytes.Equal(before, after) {
			word = "change"
		}
	}
	switch v {
	case stage.Drop:
		return "drop", "", nil
	case stage.Undecided:
		return unknown(s), "the plugin can't tell", nil
	}
	return word, "", nil
}

// read says what an expression read of the message.
func (t *Trial) read(p *expression.Program, m *message.Message) string {
	values := map[string]any{}
	for _, term := range p.Terms {
		term.Values(&m.Summary, values)
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		text := "absent"
		if values[name] != nil {
			b, err := json.Marshal(values[name])
			if err != nil {
				continue
			}
			text = clip(string(b))
		}
		if h, ok := strings.CutPrefix(name, "header:"); ok {
			name = fmt.Sprintf("header(%q)", h)
		}
		out = append(out, name+" is "+text)
	}
	return strings.Join(out, ", ")
}

// clip keeps a long value from filling the screen.
func clip(s string) string {
	const most = 120
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// Differs says, a line each, where an outcome isn't what the case expects.
func Differs(c *config.Case, got *Outcome, order []*stages.Stage) []string {
	var out []string
	for _, s := range order {
		want, named := c.Stages[s.Name]
		if !named || want == got.Verdicts[s.Name] {
			continue
		}
		line := fmt.Sprintf("stage %s: want %s, got %s", s.Name, want, got.Verdicts[s.Name])
		if why := got.Why[s.Name]; why != "" {
			line += " (" + why + ")"
		}
		out = append(out, line)
	}
	if c.Sinks != nil {
		want, is := slices.Sorted(slices.Values(*c.Sinks)), slices.Sorted(slices.Values(got.Sinks))
		if !slices.Equal(want, is) {
			line := fmt.Sprintf("sinks: want %s, got %s", list(want), list(is))
			for _, s := range order {
				if v := got.Verdicts[s.Name]; v == "drop" || v == "dead_letter" {
					line += fmt.Sprintf(": stage %s says %s", s.Name, v)
					if why := got.Why[s.Name]; why != "" {
						line += " (" + why + ")"
					}
				}
			}
			out = append(out, line)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.WantVar)) {
		if is, has := got.Vars[name]; !has {
			out = append(out, fmt.Sprintf("vars.%s: want %q, it has none", name, c.WantVar[name]))
		} else if is != c.WantVar[name] {
			out = append(out, fmt.Sprintf("vars.%s: want %q, got %q", name, c.WantVar[name], is))
		}
	}
	if c.LandsIn != "" && c.LandsIn != got.LandsIn {
		out = append(out, fmt.Sprintf("lands_in: want %q, got %q", c.LandsIn, got.LandsIn))
	}
	return out
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
