package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/internal/shard"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// Divide leaves in the file what falls to a shard: its sources and bad rows,
// and paths of its own for what a run leaves behind. It returns the names of
// the sources that fall to others. Call it once, before Settle.
func (f *File) Divide(s shard.Shard) (others []string) {
	if !s.Divides() {
		return nil
	}
	f.Sources = slices.DeleteFunc(f.Sources, func(src Source) bool {
		if s.Has(src.Name) {
			return false
		}
		others = append(others, src.Name)
		return true
	})
	f.BadRows = slices.DeleteFunc(f.BadRows, func(r BadRow) bool {
		name := r.Name
		if name == "" {
			name = r.At // told once, by one shard
		}
		return !s.Has(name)
	})
	f.Report = Report{JSON: inFile(s, f.Report.JSON), HTML: inFile(s, f.Report.HTML), CSV: inFile(s, f.Report.CSV)}
	if f.Custody != nil {
		own := *f.Custody
		own.Path = s.InFile(own.Path)
		f.Custody = &own
	}
	return others
}

// CheckDivided returns what of the file can't be done in shards, which know
// nothing of each other.
func (f *File) CheckDivided() error {
	var out []error
	for i, s := range f.Stages {
		if s != nil && s.Kind == stages.Dedupe {
			out = append(out, f.Place(fmt.Sprintf("stages[%d].dedupe", i),
				fault.New(fault.Config, "copies are looked for among the messages of all accounts, and a shard has only some of them").
					WithHint("take the stage out, or run without --shard")))
		}
	}
	for i := range f.Sinks {
		if s := &f.Sinks[i]; !s.Config.divides() {
			out = append(out, f.Place(fmt.Sprintf("sinks[%d].config", i), fault.New(fault.Config, "all shards would write to one place").
				WithHint("put ${shard} into the sink's path, as in path: export/${shard}/%s", s.Plugin)))
		}
	}
	return errors.Join(out...)
}

// divides reports whether a reference to the shard stands in the config.
func (c *PluginConfig) divides() bool {
	divides := false
	var b bytes.Buffer
	c.node.json(&b, nil, func(_ *bytes.Buffer, n *node, _ []string) bool {
		if n.kind == text && strings.Contains(n.value, "${shard") {
			t, err := parseTemplate(n.value)
			divides = divides || err == nil && t.has("shard")
		}
		return false
	})
	return divides
}

// inFile puts the shard's name into that of a report, which stands before the
// parameters in an address.
func inFile(s shard.Shard, path string) string {
	if !objects.IsAddress(path) {
		return s.InFile(path)
	}
	name, parameters, found := strings.Cut(path, "?")
	if found {
		parameters = "?" + parameters
	}
	return s.InFile(name) + parameters
}
