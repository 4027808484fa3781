package config

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// sourceName is the form of a source's name. It may be an address: most tables
// have no better name for an account.
var sourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9._@+-]*$`)

const sourceNameWords = "a name that begins with a letter a-z or a digit and goes on with those, dots, dashes, underscores, @ and +"

func (b *builder) sources(f *File, docs []sourceDoc) {
	if len(docs) == 0 && b.root.get("sources") != nil {
		b.at("sources", "expected at least one source")
	}
	taken := map[string]string{} // name -> by whom
	for i, d := range docs {
		key := fmt.Sprintf("sources[%d]", i)
		if d.Foreach != nil {
			continue
		}
		if by, ok := taken[d.Name]; ok && d.Name != "" {
			b.at(key+".name", "the name %q is taken by %s", d.Name, by)
		} else {
			taken[d.Name] = key
		}
		if d.Name != "" && !strings.Contains(d.Name, "${") && !sourceName.MatchString(d.Name) {
			b.at(key+".name", "%q isn't allowed: expected %s", d.Name, sourceNameWords)
		}
	}
	for i := range docs {
		key := fmt.Sprintf("sources[%d]", i)
		s := b.source(key, &docs[i])
		if docs[i].Foreach == nil {
			f.Sources = append(f.Sources, s)
			continue
		}
		if t := b.tables[key]; t != nil {
			b.expand(f, s, t, taken)
		}
	}
}

// source makes a source of what stands in the file.
func (b *builder) source(key string, d *sourceDoc) Source {
	s := Source{Name: d.Name, Plugin: d.Plugin, Newest: d.Order == "newest", Vars: d.Vars, Config: b.plugin(key), Key: key}
	if d.Limit != nil {
		s.Limit = *d.Limit
	}
	s.After = d.After
	for _, list := range []struct {
		name     string
		patterns []string
	}{{"include", d.Mailboxes.Include}, {"exclude", d.Mailboxes.Exclude}} {
		for j, p := range list.patterns {
			if err := checkPattern(p); err != nil {
				b.at(fmt.Sprintf("%s.mailboxes.%s[%d]", key, list.name, j), "%v", err)
			}
		}
	}
	s.Mailboxes = &Matcher{Include: d.Mailboxes.Include, Exclude: d.Mailboxes.Exclude}
	for name := range d.Vars {
		if !varForm.MatchString(name) {
			b.at(key+".vars."+name, "expected a name of letters, digits and _, since expressions read it as vars.NAME")
		}
	}
	return s
}

// expand makes a source for each row of a table. What is wrong with one row is
// a bad row; what is wrong with the source as the file has it was said.
func (b *builder) expand(f *File, pattern Source, t *table, taken map[string]string) {
	name, err := parseTemplate(pattern.Name)
	if err != nil || pattern.Name == "" || b.said[pattern.Key+".name"] {
		return
	}
	if _, constant := name.constant(); constant {
		b.at(pattern.Key+".name", "each row needs a name of its own: expected a reference to a column, as in ${row:%s}", t.columns[0])
		return
	}
	if len(t.rows) == 0 {
		b.at(pattern.Key+".foreach.csv", "%s has a header and no rows", t.name)
		return
	}
	for i := range t.rows {
		r := &t.rows[i]
		at := t.at(r)
		s, err := pattern.ofRow(t, r, name)
		if err == nil && taken[s.Name] != "" {
			err = fmt.Errorf("the name %q is taken by %s", s.Name, taken[s.Name])
		}
		if err != nil {
			f.BadRows = append(f.BadRows, BadRow{At: at, Err: fault.New(fault.Config, "%w", err)})
			continue
		}
		taken[s.Name] = at
		f.Sources = append(f.Sources, s)
	}
}

func (s Source) ofRow(t *table, r *row, name template) (Source, error) {
	if r.err != nil {
		return s, r.err
	}
	s.Row, s.cells = t.at(r), t.cells(r)
	text, err := name.eval(context.Background(), Values{Row: s.cells}) // it reads the row alone
	if err != nil {
		return s, err
	}
	// Addresses are written in any case, and file systems that don't tell
	// cases apart would mix two accounts.
	s.Name = strings.ToLower(strings.TrimSpace(text))
	switch {
	case s.Name == "":
		return s, errors.New("the row has no name")
	case !sourceName.MatchString(s.Name):
		return s, fmt.Errorf("the name %q isn't allowed: expected %s", s.Name, sourceNameWords)
	}
	s.Vars = maps.Clone(s.Vars)
	s.Config = s.Config.ofRow(s.Row, s.cells)
	return s, nil
}
