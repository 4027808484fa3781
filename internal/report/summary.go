package report

import (
	"fmt"
	"io"
	"strings"
)

// Summary writes a report that was read in a few lines: how it ended, the
// accounts by state, the sum of I1, what failed and the command that tries it
// again.
func Summary(w io.Writer, r *Report) {
	head := "pipeline " + r.Pipeline
	if r.Shard != "" {
		head += ", shard " + r.Shard
	}
	if n := len(r.Joined); n > 0 {
		head += fmt.Sprintf(", %d reports joined", n)
	}
	fmt.Fprintf(w, "%s: %s\n", head, r.Outcome)
	p := newPage(r)
	var states []string
	for _, s := range p.States {
		states = append(states, fmt.Sprintf("%s %s", number(int64(s.Count)), s.State))
	}
	if len(states) > 0 {
		fmt.Fprintf(w, "accounts: %s\n", strings.Join(states, ", "))
	}
	var terms []string
	for _, t := range p.Parts {
		terms = append(terms, fmt.Sprintf("%s %s", number(t.Count), t.Name))
	}
	if len(terms) == 0 {
		terms = []string{"0 written"}
	}
	fmt.Fprintf(w, "total: %s listed = %s\n", number(r.Total.Listed), strings.Join(terms, " + "))
	for _, f := range r.Failures {
		where := ""
		if f.Where != "" {
			where = " at " + f.Where
		}
		fmt.Fprintf(w, "%s %s%s (%s): %s\n  again: %s\n", number(f.Count), things(f.Kind, f.Count), where, f.Reason, f.Text, f.Command)
	}
}
