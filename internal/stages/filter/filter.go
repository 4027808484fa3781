// Package filter is the stages filter and drop: an expression that says which
// messages go on, or which don't.
package filter

import (
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
)

// Filter is one filter or drop stage. It is safe for concurrent use.
type Filter struct {
	// Program is true for the messages that go on: for drop it is the
	// negation of what stands in the file.
	Program *expression.Program
}

// Options say how the expression is read.
type Options struct {
	Location *time.Location // of date("…"); nil is UTC
	Vars     []string       // the variables that exist; nil: any
}

// Keep returns the filter that lets pass what the expression is true for. Its
// errors are those of expression.Compile.
func Keep(text string, o Options) (*Filter, error) { return compile(text, o, false) }

// Drop returns the filter that lets pass what the expression is false for.
func Drop(text string, o Options) (*Filter, error) { return compile(text, o, true) }

func compile(text string, o Options, negate bool) (*Filter, error) {
	p, err := expression.Compile(text, expression.Options{Location: o.Location, Vars: o.Vars, Negate: negate})
	if err != nil {
		return nil, err
	}
	return &Filter{Program: p}, nil
}
