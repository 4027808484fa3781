package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Warnings returns what the file allows and its writer can hardly mean: a
// filter that is always false, a sink that nothing reaches, a text that YAML
// cuts. now is the time that now() stands for. Secrets that stand in the file
// are told by PluginConfig.PlainSecrets, since only plugins know them.
func (f *File) Warnings(now time.Time) Problems {
	w := &warner{f: f, now: now}
	w.cut("", f.root)
	w.stages()
	for i := range f.Sinks {
		w.sink(fmt.Sprintf("sinks[%d].when", i), f.Sinks[i].When)
	}
	w.out.Sort()
	return w.out
}

type warner struct {
	f       *File
	now     time.Time
	out     Problems
	chain   []*expression.Program // that a message must fulfil to reach the sinks
	nothing bool                  // no message does
	moved   bool                  // a stage changes what later expressions read
}

func (w *warner) warn(key, format string, args ...any) {
	_, line, column, _ := w.f.root.locate(key)
	w.out = append(w.out, Problem{w.f.Path, line, column, key, fmt.Sprintf(format, args...)})
}

// cut finds texts behind which a comment begins without a space: YAML takes
// `secret #12` for `secret`.
func (w *warner) cut(key string, n *node) {
	for _, m := range n.members {
		w.cut(joinKey(key, m.name), m.node)
	}
	for i, item := range n.items {
		w.cut(fmt.Sprintf("%s[%d]", key, i), item)
	}
	if n.kind == text && n.plain && n.stuck {
		w.warn(key, "YAML takes what follows # for a comment: put the whole value in single quotes, or write a space behind the #")
	}
}

func (w *warner) stages() {
	for i, s := range w.f.Stages {
		key := fmt.Sprintf("stages[%d].%s", i, s.Kind)
		if s.Filter == nil {
			w.moved = w.moved || s.Kind != stages.Limit
			continue
		}
		p := s.Filter.Program
		if why := w.never(p); why != "" {
			w.warn(key, "it drops every message: %s", w.told(s, why))
			w.nothing = true
			continue
		}
		if w.moved {
			continue
		}
		if why := expression.Contradiction(w.now, append(slices.Clone(w.chain), p)...); why != "" && !w.nothing {
			w.warn(key, "with the stages before it, it drops every message: %s", why)
			w.nothing = true
		}
		w.chain = append(w.chain, p)
	}
}

// told turns the reason around for a drop: its program is true where the
// expression is false.
func (w *warner) told(s *stages.Stage, why string) string {
	if s.Kind == stages.Drop {
		return "the expression is true of each"
	}
	return why
}

func (w *warner) sink(key string, when *expression.Program) {
	switch {
	case w.nothing:
		return // said at the stage
	case when == nil:
		return
	}
	why := w.never(when)
	if why == "" && !w.moved {
		why = expression.Contradiction(w.now, append(slices.Clone(w.chain), when)...)
	}
	if why != "" {
		w.warn(key, "no message reaches this sink: %s", why)
	}
}

// never says why an expression is false of every message that the sources have.
func (w *warner) never(p *expression.Program) string {
	if why := expression.Contradiction(w.now, p); why != "" {
		return why
	}
	for _, name := range p.Equals("source") {
		names := make([]string, len(w.f.Sources))
		for i := range names {
			names[i] = w.f.Sources[i].Name
		}
		if !slices.Contains(names, name) {
			return fmt.Sprintf("there is no source %q%s", name, spec.DidYouMean(name, names))
		}
	}
	if w.moved {
		return ""
	}
	for _, name := range p.Equals("mailbox") {
		box := message.Mailbox{Name: name}
		if !slices.ContainsFunc(w.f.Sources, func(s Source) bool { return maySelect(s.Mailboxes, box) }) {
			return fmt.Sprintf("no source exports the mailbox %q", name)
		}
	}
	return ""
}

// maySelect reports whether a mailbox of that name may be exported: what is
// special about it only the server knows.
func maySelect(m *Matcher, box message.Mailbox) bool {
	special := func(p string) bool { return strings.HasPrefix(p, "special:") }
	include := slices.Clone(m.Include)
	if slices.ContainsFunc(include, special) {
		include = nil
	}
	exclude := slices.DeleteFunc(slices.Clone(m.Exclude), special)
	return (&Matcher{Include: include, Exclude: exclude}).Match(box)
}
