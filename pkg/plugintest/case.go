package plugintest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// testCase is one promise of the contract.
type testCase struct {
	name    string
	promise string
	kinds   []wire.Kind // whose; empty: all
	process bool        // only a process can keep or break it
	run     func(*attempt)
}

// cases are all there are, in the order in which they are run.
func cases() []testCase {
	return slices.Concat(everyKind(), sourceCases(), sinkCases(), stageCases(), processCases())
}

func (c testCase) of(k wire.Kind) bool { return len(c.kinds) == 0 || slices.Contains(c.kinds, k) }

// casesOf returns those that a direction can try.
func casesOf(d *direction, f Fixture) []testCase {
	var out []testCase
	for _, c := range cases() {
		if c.of(d.kind) && (d.process || !c.process) && (len(f.Cases) == 0 || slices.Contains(f.Cases, c.name)) {
			out = append(out, c)
		}
	}
	return out
}

// The longest that a case may take beside the fixture's patience, and that a
// plugin may take to stop. The contract says a second; the other is for a
// loaded machine.
const (
	caseLimit = 2 * time.Minute
	stopLimit = 2 * time.Second
)

// attempt is a case that is being tried.
type attempt struct {
	subject
	ctx      context.Context
	d        *direction
	f        Fixture
	dir      string // of this case, empty
	problems []string
	notTried string
}

// over ends a case; it is thrown by give and leave.
type over struct{}

// fail notes a problem and goes on.
func (a *attempt) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(a.problems) < 20 && !slices.Contains(a.problems, text) {
		a.problems = append(a.problems, text)
	}
}

// give notes a problem and ends the case.
func (a *attempt) give(format string, args ...any) {
	a.fail(format, args...)
	panic(over{})
}

// must ends the case for an error.
func (a *attempt) must(err error, format string, args ...any) {
	if err != nil {
		a.give("%s: %s", fmt.Sprintf(format, args...), explain(err))
	}
}

// leave ends the case without a finding.
func (a *attempt) leave(format string, args ...any) {
	a.notTried = fmt.Sprintf(format, args...)
	panic(over{})
}

func explain(err error) string {
	if f := fault.As(err); f != nil {
		return fmt.Sprintf("%v (%v)", err, f.Class)
	}
	return err.Error()
}

// try tries a case with a plugin of its own.
func (c testCase) try(ctx context.Context, d *direction, f Fixture) (r Result) {
	if f.Patience == 0 {
		f.Patience = 2 * time.Second
	}
	if f.Large == 0 {
		f.Large = 64 << 20
	}
	r = Result{Case: c.name, Promise: c.promise}
	began := time.Now()
	defer func() { r.Took = time.Since(began) }()
	dir, err := os.MkdirTemp("", "plugintest-")
	if err != nil {
		r.Problems = []string{err.Error()}
		return r
	}
	defer os.RemoveAll(dir)
	// The plugin's directory has a parent of the case's own, where nothing
	// else may appear.
	dir = filepath.Join(dir, "case")
	if err := os.Mkdir(dir, 0o755); err != nil {
		r.Problems = []string{err.Error()}
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, caseLimit+20*f.Patience)
	defer cancel()
	a := &attempt{ctx: ctx, d: d, f: f, dir: dir}
	if a.subject, err = d.begin(dir); err != nil {
		r.Problems = []string{explain(err)}
		return r
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.within(c.run)
	}()
	select {
	case <-done:
	case <-time.After(caseLimit + 20*f.Patience + stopLimit):
		// The result is told, and what hangs is left to its goroutine.
		r.Problems = []string{fmt.Sprintf("hung: a call had not returned %v after its context was cancelled", stopLimit)}
		_ = a.subject.end() // that it hung tells more
		return r
	}
	r.Problems, r.NotTried = a.problems, a.notTried
	if err := a.subject.end(); err != nil {
		r.Problems = append(r.Problems, "end the plugin: "+explain(err))
	}
	if p, ok := a.subject.(*process); ok {
		p.closeStages()
	}
	return r
}

// within runs f until it ends or is over.
func (a *attempt) within(f func(*attempt)) {
	defer func() {
		switch p := recover().(type) {
		case nil, over:
		default:
			a.fail("panic: %v\n%s", p, debug.Stack())
		}
	}()
	f(a)
}

// soon runs f, which ought to end at once because what it waits for was
// cancelled, and notes how long it took when that was too long.
func (a *attempt) soon(what string, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.within(func(*attempt) { f() })
	}()
	began := time.Now()
	select {
	case <-done:
	case <-time.After(stopLimit):
		a.fail("%s had not ended %v after it was cancelled; the contract says a second", what, stopLimit)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			a.give("%s didn't end for %v more", what, time.Since(began).Round(time.Second))
		}
	}
}

// class says whether err is of the class, and notes it when not.
func (a *attempt) class(err error, want fault.Class, what string) bool {
	if !fault.Is(err, want) {
		if err == nil {
			a.fail("%s: no error, want one of class %v", what, want)
		} else {
			a.fail("%s: %s, want one of class %v", what, explain(err), want)
		}
		return false
	}
	return true
}

// apart returns err's parts when it joins several.
func apart(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

func oneOf(kinds ...wire.Kind) []wire.Kind { return kinds }

func words(list []string) string {
	if len(list) > 5 {
		list = append(slices.Clone(list[:5]), fmt.Sprintf("… (%d)", len(list)))
	}
	return strings.Join(list, ", ")
}
