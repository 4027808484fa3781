package config

import (
	"fmt"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Problem is one thing that is wrong with the file, and where.
type Problem struct {
	File         string
	Line, Column int    // from 1; 0 when the place isn't known
	Key          string // path of the key, as in "sources[0].config.port"; may be empty
	Text         string // what is wrong and what was expected
}

// Error returns the problem in a line: file:line:column: key: text.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems are all that is wrong, in the order of the file. As an error it is
// a fault.Config.
type Problems []Problem

// Error returns the problems, a line each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the fault of class Config that the problems amount to.
func (ps Problems) Unwrap() error {
	f := &fault.Error{Class: fault.Config, Text: ps.Error()}
	if len(ps) > 0 {
		f.Key = ps[0].Key
	}
	return f
}
