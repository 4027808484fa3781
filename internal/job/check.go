package job

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// Check holds every plugin's config against the schema that the plugin
// publishes. It evaluates no reference and uses no network. All that is wrong
// comes back at once, but for what is wrong with one row of a table: that is
// added to the file's BadRows, and the row's source taken out.
func (j *Job) Check(ctx context.Context) error {
	j.askAll(ctx)
	all := slices.Clone(j.wrong)
	var others []error
	take := func(err error) {
		var ps config.Problems
		switch {
		case errors.As(err, &ps):
			all = append(all, ps...)
		case err != nil:
			others = append(others, err)
		}
	}
	var disk error              // the ledger's, where answers are kept: no plugin's fault, nor the file's
	absent := map[string]bool{} // plugins: 3,000 sources may name one
	schema := func(kind pluginhost.Kind, plugin, key string) *config.PluginSchema {
		name := kind.String() + " " + plugin
		if absent[name] || plugin == "" { // which the file's own mistakes tell
			return nil
		}
		s, err := j.schema(ctx, kind, plugin)
		switch {
		case fault.Is(err, fault.Full):
			disk = err
			absent[name] = true
		case err != nil:
			placed := fault.As(j.File.Place(key+".plugin", err))
			if fault.Is(err, fault.Crashed) {
				placed.Class = fault.Crashed // it may live the next time: the file isn't wrong
			}
			others = append(others, placed)
			absent[name] = true
		}
		return s
	}
	// In a file with mistakes a config that isn't there may stand under a wrong
	// name, which they tell: what it lacks would be noise.
	check := func(c *config.PluginConfig, s *config.PluginSchema) error {
		if len(j.wrong) > 0 && c.Absent() {
			return nil
		}
		return c.CheckWith(s)
	}
	patterns := map[*config.PluginConfig]bool{} // what stands for many sources, and whether it is right
	j.eachSource(func(s *config.Source) error {
		if right, seen := patterns[s.Config.Pattern()]; seen && !right {
			return nil
		} else if !seen {
			sc := schema(pluginhost.Source, s.Plugin, s.Key)
			if sc != nil {
				err := check(s.Config.Pattern(), sc)
				take(err)
				right = err == nil
			}
			patterns[s.Config.Pattern()] = right
			if !right || s.Row == "" {
				return nil
			}
		}
		if s.Row == "" {
			return nil
		}
		sc, err := j.schema(ctx, pluginhost.Source, s.Plugin)
		if err != nil {
			return err
		}
		return s.Config.CheckWith(sc)
	})
	for i := range j.File.Sinks {
		s := &j.File.Sinks[i]
		if sc := schema(pluginhost.Sink, s.Plugin, fmt.Sprintf("sinks[%d]", i)); sc != nil {
			take(check(s.Config, sc))
			take(checkAddress(s.Config))
		}
	}
	for i, c := range j.File.Plugins {
		if c != nil && j.File.Stages[i] != nil {
			if sc := schema(pluginhost.Stage, j.File.Stages[i].Plugin, fmt.Sprintf("stages[%d]", i)); sc != nil {
				take(check(c, sc))
			}
		}
	}
	if disk != nil {
		return disk
	}
	if j.shard.Divides() {
		others = append(others, j.File.CheckDivided())
	}
	if len(all) == 0 && len(absent) == 0 {
		others = append(others, j.checkReads(ctx)...)
	}
	if j.File.Engine.Shared() {
		others = append(others, j.File.CheckShared()...)
	}
	if len(all) > 0 {
		all.Sort()
		others = append([]error{all}, others...)
	}
	return errors.Join(others...)
}

// checkReads finds what stages and routes read of messages that a source's
// plugin never has. What a stage that is a plugin reads is known only when it
// has been asked, for the plan.
func (j *Job) checkReads(ctx context.Context) []error {
	p := &plan.Plan{Chain: j.File.Chain()}
	for i := range j.File.Sources {
		s := &j.File.Sources[i]
		d, err := j.describe(ctx, pluginhost.Source, s.Plugin)
		if err != nil {
			return []error{err}
		}
		p.Sources = append(p.Sources, plan.Source{Name: s.Name, Plugin: s.Plugin, Row: s.Row, Provides: d.Provides})
	}
	for i := range j.File.Sinks {
		p.Sinks = append(p.Sinks, plan.Sink{Name: j.File.Sinks[i].Name, When: j.File.Sinks[i].When})
	}
	errs := p.CheckReads()
	for i, err := range errs {
		errs[i] = j.File.Place(fault.As(err).Key, err)
	}
	return errs
}
