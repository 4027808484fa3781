package plugintest

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// everyKind are the cases of sources, sinks and stages alike.
func everyKind() []testCase {
	return []testCase{
		{name: "describes-itself", promise: "Describe gives kind, name, semantic version, summary, and the config as a closed JSON Schema.", run: describesItself},
		{name: "rejects-bad-config", promise: "A config with an unknown key, a wrong type or a missing key is refused with class config and the key's path.", run: rejectsBadConfig},
		{name: "keeps-secrets", promise: "A secret appears in no log and in no error.", run: keepsSecrets},
	}
}

var semantic = regexp.MustCompile(`^\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$`)

func describesItself(a *attempt) {
	d, err := a.describe(a.ctx)
	a.must(err, "Describe")
	again, err := a.describe(a.ctx)
	a.must(err, "Describe")
	if d.Kind != a.d.kind || d.Name != a.d.name {
		a.fail("it says that it is the %s %q, not the %s %q", d.Kind, d.Name, a.d.kind, a.d.name)
	}
	if !semantic.MatchString(d.Version) {
		a.fail("its version %q isn't a semantic one, as in 1.0.0", d.Version)
	}
	if d.Summary == "" || strings.Contains(d.Summary, "\n") {
		a.fail("its summary is %q, not one line of text", d.Summary)
	}
	if string(d.Schema) != string(again.Schema) || d.Version != again.Version {
		a.fail("it describes itself differently the second time")
	}
	if d.Kind == wire.KindSource && !d.Provides.Has(message.NeedBody) {
		a.fail("it provides %v, without the body", d.Provides)
	}
	var schema struct {
		Type       string `json:"type"`
		Additional any    `json:"additionalProperties"`
		Properties map[string]struct {
			Description string `json:"description"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(d.Schema, &schema); err != nil || schema.Type != "object" {
		a.give("its config schema isn't the JSON Schema of an object: %v", err)
	}
	if schema.Additional != false {
		a.fail("its config schema lets unknown keys pass: additionalProperties isn't false")
	}
	for _, key := range slices.Sorted(maps.Keys(schema.Properties)) {
		if schema.Properties[key].Description == "" {
			a.fail("the key %q of its config has no description", key)
		}
	}
}

func rejectsBadConfig(a *attempt) {
	d, err := a.describe(a.ctx)
	a.must(err, "Describe")
	good := a.settings()
	if _, err := a.prepare(a.ctx, good); err != nil {
		a.must(err, "Prepare with the fixture's config")
	}
	var schema struct {
		Properties map[string]struct {
			Type any `json:"type"`
		} `json:"properties"`
		Required []string `json:"required"`
	}
	if err := json.Unmarshal(d.Schema, &schema); err != nil {
		a.give("its config schema can't be read: %v", err)
	}
	try := func(what, key string, change func(map[string]any)) {
		var config map[string]any
		if err := json.Unmarshal(good.json, &config); err != nil {
			a.give("the fixture's config: %v", err)
		}
		change(config)
		bad := good
		bad.json, _ = json.Marshal(config) // it came from JSON
		_, err := a.prepare(a.ctx, bad)
		if !a.class(err, fault.Config, what) {
			return
		}
		for _, part := range apart(err) {
			if f := fault.As(part); f != nil && strings.HasPrefix(f.Key, key) {
				return
			}
		}
		a.fail("%s: the error's key is %q, want %q: %s", what, fault.As(err).Key, key, explain(err))
	}
	try("an unknown key", "no_such_key", func(c map[string]any) { c["no_such_key"] = 1 })
	for _, key := range slices.Sorted(maps.Keys(schema.Properties)) {
		kind, ok := schema.Properties[key].Type.(string)
		if !ok {
			continue // it may be anything, or one of several
		}
		var wrong any = []any{[]any{}}
		if kind == "array" {
			wrong = true
		}
		try("a "+key+" of the wrong type", key, func(c map[string]any) { c[key] = wrong })
	}
	for _, key := range schema.Required {
		try("no "+key, key, func(c map[string]any) { delete(c, key) })
	}
}

// canary is handed over in the place of each secret, so that a login that
// fails is tested as well.
const canary = "c4nary-in-the-m1ne"

func keepsSecrets(a *attempt) {
	c := a.settings()
	if len(c.secrets) == 0 {
		a.leave("the fixture's config has no secret")
	}
	look := func(texts []string, secrets ...string) {
		for _, s := range secrets {
			for _, text := range texts {
				if len(s) > 3 && strings.Contains(text, s) {
					a.fail("a secret is shown: %s", strings.ReplaceAll(text, s, "(THE SECRET)"))
				}
			}
		}
	}
	exercise(a, c)
	all, _ := a.said()
	look(all, slices.Collect(maps.Values(c.secrets))...)
	wrong := c
	wrong.secrets = map[string]string{}
	for ref := range c.secrets {
		wrong.secrets[ref] = canary
	}
	if err := a.try(wrong); err != nil {
		texts := []string{err.Error()}
		if f := fault.As(err); f != nil {
			texts = append(texts, f.Hint)
		}
		look(texts, canary)
	}
	all, _ = a.said()
	look(all, canary)
}

// try opens a session and ends it, and returns what went wrong.
func (a *attempt) try(c settings) error {
	switch a.d.kind {
	case wire.KindSource:
		o, err := a.source(a.ctx, c)
		if err != nil {
			return err
		}
		for _, err := range o.Source.Mailboxes(a.ctx) {
			if err != nil {
				_ = o.Source.Close() // the first error tells more
				return err
			}
		}
		return o.Source.Close()
	case wire.KindSink:
		s, err := a.sink(a.ctx, c, state(nil, false))
		if err != nil {
			return err
		}
		return s.Close()
	default:
		p, err := a.prepare(a.ctx, c)
		if err != nil {
			return err
		}
		s, err := a.stage(a.ctx, c, p)
		if err != nil {
			return err
		}
		return s.Close()
	}
}

// exercise does with a plugin what a small run does.
func exercise(a *attempt, c settings) {
	switch a.d.kind {
	case wire.KindSource:
		s := openSource(a, c)
		box := s.box(a)
		s.fetch(a, box.Name, ids(s.list(a, box.Name, 20)))
		s.close(a)
	case wire.KindSink:
		s := openSink(a, c, nil)
		for _, m := range ordinary(8) {
			s.write(a, m)
		}
		s.commit(a)
		s.close(a)
	default:
		s := openStage(a, c)
		for _, m := range ordinary(8) {
			s.apply(a, m)
		}
		s.close(a)
	}
}
