package plan

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Check finds what the file allows and the plugins can't do: a field that a
// source never has, a limit behind a stage that needs bodies, two sinks that
// write into one target.
func (p *Plan) Check() error {
	return errors.Join(slices.Concat(p.sharedTargets(), p.CheckReads(), p.checkRehash())...)
}

// CheckReads finds what stages and routes read of a message that a source never
// has. It takes no more of the plan than what sources provide, stages and routes.
func (p *Plan) CheckReads() (errs []error) {
	for _, g := range p.groups() {
		s := g.sources[0]
		// The octets tell the headers and the structure whatever the source
		// can list.
		can := s.Provides | message.NeedHeaders | message.NeedStructure | message.NeedBody
		for j, st := range p.Chain.Stages() {
			if lacks := st.Needs() &^ can; lacks != 0 {
				errs = append(errs, fault.New(fault.Config, "stage %s reads %s, which source %s (plugin %s) never has", st.Name, lacks, s.Name, s.Plugin).
					WithKey(fmt.Sprintf("stages[%d]", j)).WithHint("take the stage out, or give that source a pipeline of its own"))
			}
		}
		for j := range p.Sinks {
			w := p.Sinks[j].When
			if w == nil {
				continue
			}
			if lacks := w.Needs() &^ can; lacks != 0 {
				errs = append(errs, fault.New(fault.Config, "the `when` of sink %s reads %s, which source %s (plugin %s) never has", p.Sinks[j].Name, lacks, s.Name, s.Plugin).
					WithKey(fmt.Sprintf("sinks[%d].when", j)).WithHint("write the `when` without it, or give that source a pipeline of its own"))
			}
		}
		for j, st := range p.Chain.Stages() {
			if st.Kind != stages.Limit && st.Kind != stages.Dedupe {
				continue
			}
			if before := p.Chain.Before(st.Name) &^ s.Provides; before != 0 {
				errs = append(errs, fault.New(fault.Config, "stage %s %s in the order of the listing, but a stage before it needs the body from source %s (%s)",
					st.Name, map[stages.Kind]string{stages.Limit: "counts", stages.Dedupe: "compares"}[st.Kind], s.Name, before).
					WithKey(fmt.Sprintf("stages[%d]", j)).WithHint("put the %s before it%s", st.Kind, map[stages.Kind]string{stages.Limit: ", or use the source's own limit"}[st.Kind]))
			}
			if lacks := st.Needs() &^ s.Provides; lacks != 0 {
				errs = append(errs, fault.New(fault.Config, "stage %s compares %s, which source %s (plugin %s) can't list", st.Name, lacks, s.Name, s.Plugin).
					WithKey(fmt.Sprintf("stages[%d]", j)).WithHint("take the stage out, or give that source a pipeline of its own"))
			}
		}
	}
	return errs
}

// checkRehash finds sinks whose files can't be read back, where a source's
// `after` wants that.
func (p *Plan) checkRehash() (errs []error) {
	at := slices.IndexFunc(p.Sources, func(s Source) bool { return s.After.Rehash })
	if at < 0 {
		return nil
	}
	s, files := &p.Sources[at], false
	for i := range p.Sinks {
		k := &p.Sinks[i]
		if k.Prepared.Record {
			continue // its lines tell of files; they are none
		}
		files = true
		if !k.Prepared.Manifest {
			errs = append(errs, fault.New(fault.Config, "`rehash` of source %s reads the messages' files back, and sink %s (plugin %s) keeps no manifest of its files", s.Name, k.Name, k.Plugin).
				WithKey(fmt.Sprintf("sinks[%d]", i)).WithHint("take `rehash` out, or give that sink a pipeline of its own"))
		}
	}
	if !files {
		errs = append(errs, fault.New(fault.Config, "`rehash` of source %s reads the messages' files back, and no sink makes files of them", s.Name).
			WithHint("take `rehash` out, or add a sink of files, as eml"))
	}
	return errs
}

// sharedTargets finds sinks that would write into one directory. Other targets,
// as a service at a URL, may well take from two sinks.
func (p *Plan) sharedTargets() (errs []error) {
	first := map[string]string{}
	for i := range p.Sinks {
		s := &p.Sinks[i]
		if !filepath.IsAbs(s.Prepared.Target) && s.Address == "" {
			continue
		}
		other, taken := first[s.Prepared.Target]
		if taken {
			errs = append(errs, fault.New(fault.Config, "sinks %s and %s both write to %s", other, s.Name, s.Prepared.Target).
				WithKey(fmt.Sprintf("sinks[%d].config.path", i)).WithHint("give each sink a path of its own"))
			continue
		}
		first[s.Prepared.Target] = s.Name
	}
	return errs
}

// CheckFenced finds sinks that can't be written to by several machines at once.
// It is for runs whose work is divided into tasks (sink.Fence).
func (p *Plan) CheckFenced() error {
	var errs []error
	for i := range p.Sinks {
		s := &p.Sinks[i]
		switch {
		case s.Prepared.Fenced:
		case s.Address == "" && filepath.IsAbs(s.Prepared.Target):
			errs = append(errs, fault.New(fault.Config, "sink %s (plugin %s) writes to %s, which is in a file system: several machines can't write there without harm", s.Name, s.Plugin, s.Prepared.Target).
				WithKey(fmt.Sprintf("sinks[%d].config.path", i)).WithHint("give it the address of a place in a bucket, as s3://bucket/mail; or run with engine: {type: local}"))
		default:
			errs = append(errs, fault.New(fault.Config, "sink %s: plugin %s can't write for several machines at once: it knows no fences", s.Name, s.Plugin).
				WithKey(fmt.Sprintf("sinks[%d]", i)).WithHint("update the plugin, give that sink a pipeline of its own, or run with engine: {type: local}"))
		}
	}
	return errors.Join(errs...)
}
