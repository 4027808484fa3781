package report

import (
	"cmp"
	_ "embed" // the page
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed page.html
var pageText string

//go:embed style.css
var styleText string

// Style is the style sheet of the pages that people see of a run.
func Style() string { return styleText }

// pageTemplate is parsed once, when a page is first made.
var pageTemplate = sync.OnceValues(func() (*template.Template, error) {
	return template.New("page").Funcs(template.FuncMap{
		"n": func(v any) (string, error) {
			switch v := v.(type) {
			case int:
				return number(int64(v)), nil
			case int64:
				return number(v), nil
			}
			return "", fmt.Errorf("%T is no number", v)
		}, "things": things, "size": size, "clock": clock,
		"style": func() template.CSS { return template.CSS(styleText) }, //nolint:gosec // a file of ours
	}).Parse(pageText)
})

// HTML writes the report as one page that needs nothing else: no network, no
// other file. Rows of accounts are made when they come into sight, so that
// thousands open at once.
func HTML(w io.Writer, r *Report) error {
	t, err := pageTemplate()
	if err != nil {
		return err
	}
	return t.Execute(w, newPage(r))
}

// page is what the template shows.
type page struct {
	*Report
	Took     string
	Good     bool
	States   []stateCount
	Boxes    int
	Parts    []Term
	Rate     Chart
	Sizes    []bar
	Blind    []BlindSpot
	Server   int64
	Known    bool // every server told its counts
	PerSec   string
	Dropped  int64
	Excluded int
	Rows     []row
}

type stateCount struct {
	State string
	Count int
}

// Term is one term of I1, as it is drawn.
type Term struct {
	Name  string  `json:"name"`
	Class string  `json:"class"` // of the style sheet, behind "c-"
	Count int64   `json:"count"`
	X     float64 `json:"x"` // of 1000
	W     float64 `json:"w"` // so, too
}

// bar is one bar of the sizes.
type bar struct {
	Name     string
	Octets   int64
	Messages int64
	W        float64 // of 100
}

// row is an account for the script of the page: short, since there may be
// thousands of them with dozens of mailboxes each.
type row struct {
	Source  string `json:"s"`
	State   string `json:"t"`
	Until   string `json:"u,omitempty"`
	Error   string `json:"e,omitempty"`
	Hint    string `json:"h,omitempty"`
	Numbers []any  `json:"n"` // see Numbers
	Boxes   []any  `json:"b"` // see Boxes
}

func newPage(r *Report) *page {
	p := &page{Report: r, Good: r.Exit == 0, Took: duration(r.Ended.Sub(r.Began)), Known: true, Dropped: r.Total.AllDropped(), Blind: r.BlindSpots()}
	states := map[string]int{}
	for i := range r.Accounts {
		a := &r.Accounts[i]
		states[a.State]++
		p.Rows = append(p.Rows, newRow(a))
		for j := range a.Mailboxes {
			m := &a.Mailboxes[j]
			if m.State == "excluded" {
				p.Excluded++
				continue
			}
			p.Boxes++
			if m.Sum.Server == nil {
				p.Known = false
			} else {
				p.Server += *m.Sum.Server
			}
		}
	}
	for _, s := range []string{"complete", "incomplete", "parked", "never listed"} {
		if states[s] > 0 {
			p.States = append(p.States, stateCount{s, states[s]})
		}
	}
	if sec := r.Ended.Sub(r.Began).Seconds(); sec > 0 && r.Total.Octets > 0 {
		p.PerSec = size(int64(float64(r.Total.Octets)/sec)) + "/s"
	}
	p.Parts = Terms(&r.Total)
	p.Rate = NewChart(r.Timeline, r.Ended.Sub(r.Began))
	p.Sizes = bars(r)
	return p
}

// Terms are the terms of I1 in the order in which they are read, without those
// that are zero.
func Terms(s *Sum) []Term {
	out := []Term{{Name: "written", Class: "written", Count: s.Written}, {Name: "done before", Class: "before", Count: s.DoneBefore}}
	for _, stage := range slices.Sorted(maps.Keys(s.Dropped)) {
		out = append(out, Term{Name: "dropped by " + stage, Class: "dropped", Count: s.Dropped[stage]})
	}
	out = append(out,
		Term{Name: "duplicates", Class: "dup", Count: s.Duplicates}, Term{Name: "unrouted", Class: "unrouted", Count: s.Unrouted},
		Term{Name: "dead letters", Class: "dead", Count: s.DeadLetters}, Term{Name: "vanished", Class: "vanished", Count: s.Vanished},
		Term{Name: "pending", Class: "pending", Count: s.Pending})
	out = slices.DeleteFunc(out, func(p Term) bool { return p.Count == 0 })
	x := 0.0
	for i := range out {
		out[i].X = x
		out[i].W = 1000 * float64(out[i].Count) / float64(max(s.Listed, 1))
		x += out[i].W
		out[i].W = max(out[i].W, 1.5) // seen, however few
	}
	return out
}

// things is the kind of a failure as it stands behind a count of them.
func things(kind string, count int64) string {
	switch {
	case count != 1:
		return kind
	case strings.HasSuffix(kind, "boxes"):
		return strings.TrimSuffix(kind, "es")
	}
	return strings.TrimSuffix(kind, "s")
}

// mostBars is how many bars the sizes have.
const mostBars = 12

// bars are the largest mailboxes of a few accounts, or the largest of many
// accounts, by the octets that came in this run.
func bars(r *Report) []bar {
	var all []bar
	for i := range r.Accounts {
		a := &r.Accounts[i]
		if len(r.Accounts) > 3 {
			all = append(all, bar{Name: a.Source, Octets: a.Sum.Octets, Messages: a.Sum.Written})
			continue
		}
		for _, m := range a.Mailboxes {
			name := m.Name
			if len(r.Accounts) > 1 {
				name = a.Source + "/" + name
			}
			all = append(all, bar{Name: name, Octets: m.Sum.Octets, Messages: m.Sum.Written})
		}
	}
	all = slices.DeleteFunc(all, func(b bar) bool { return b.Octets == 0 })
	slices.SortStableFunc(all, func(a, b bar) int { return cmp.Compare(b.Octets, a.Octets) })
	if len(all) >= mostBars {
		rest := bar{Name: fmt.Sprintf("%s more", number(int64(len(all)-mostBars+1)))}
		for _, b := range all[mostBars-1:] {
			rest.Octets += b.Octets
			rest.Messages += b.Messages
		}
		all = append(all[:mostBars-1], rest)
	}
	for i := range all[:min(len(all), mostBars-1)] { // the rest has none: it would dwarf them
		all[i].W = max(0.5, 100*float64(all[i].Octets)/float64(all[0].Octets))
	}
	return all
}

func newRow(a *Account) row {
	out := row{Source: a.Source, State: a.State, Until: a.Until, Error: a.Error, Hint: a.Hint, Numbers: Numbers(&a.Sum), Boxes: Boxes(a)}
	return out
}

// Boxes returns the mailboxes of an account as the script of a page takes them,
// each: name, state, numbers, [blind spots], problem, notes; what is empty at the
// end of one is left out.
func Boxes(a *Account) []any {
	out := []any{}
	for i := range a.Mailboxes {
		m := &a.Mailboxes[i]
		note := ""
		switch {
		case m.Limited:
			note = "the limit ended the listing"
		case m.Unchanged:
			note = "unchanged since the last run"
		}
		blind := m.BlindSpots
		if blind == nil {
			blind = []string{}
		}
		box := []any{m.Name, m.State, Numbers(&m.Sum), blind, m.Problem, note}
		for len(box) > 3 && (box[len(box)-1] == "" || len(box) == 4 && len(blind) == 0) {
			box = box[:len(box)-1]
		}
		out = append(out, box)
	}
	return out
}

// Numbers returns a sum as the script of a page takes it: listed, done before,
// written, dropped, duplicates, unrouted, dead letters, vanished, pending, the
// server's count or nil, octets.
func Numbers(s *Sum) []any {
	var server any
	if s.Server != nil {
		server = *s.Server
	}
	return []any{s.Listed, s.DoneBefore, s.Written, s.AllDropped(), s.Duplicates, s.Unrouted, s.DeadLetters, s.Vanished, s.Pending, server, s.Octets}
}

// Chart is the throughput over time, as SVG paths in a field of 1000 by 200.
type Chart struct {
	Area        string `json:"area"`
	Line        string `json:"line"`
	Messages    string `json:"messages"`
	Top         string `json:"top"` // what the upper edge stands for, of the octets
	TopMessages string `json:"top_messages"`
	Ticks       []Tick `json:"ticks"`
	Shown       bool   `json:"shown"`
}

// Tick is a place on a chart's axis of time.
type Tick struct {
	X    float64 `json:"x"` // of 1000
	Text string  `json:"text"`
}

// NewChart draws the timeline of a run that took so long. Where there is too
// little to draw, it isn't Shown.
func NewChart(t Timeline, took time.Duration) Chart {
	var c Chart
	if len(t.Octets) < 3 || t.Seconds <= 0 {
		return c
	}
	octets, messages := rates(t.Octets, t.Seconds, took), rates(t.Messages, t.Seconds, took)
	topO, topM := nice(slices.Max(octets), true), nice(slices.Max(messages), false)
	if slices.Max(octets) == 0 && slices.Max(messages) == 0 {
		return c
	}
	c.Line = path(octets, topO)
	c.Area = c.Line + " L1000 200 L0 200 Z"
	c.Messages = path(messages, topM)
	c.Top, c.TopMessages, c.Shown = size(int64(topO))+"/s", number(int64(topM))+" messages/s", true
	whole := float64(len(octets)) * t.Seconds
	step := niceTime(whole / 6)
	for at := 0.0; at <= whole; at += step {
		c.Ticks = append(c.Ticks, Tick{1000 * at / whole, duration(time.Duration(at * float64(time.Second)))})
	}
	return c
}

// rates are per second. The last span may be shorter than the others.
func rates(n []int64, seconds float64, took time.Duration) []float64 {
	out := make([]float64, len(n))
	for i, v := range n {
		span := seconds
		if rest := took.Seconds() - float64(len(n)-1)*seconds; i == len(n)-1 && rest < span {
			span = max(rest, seconds/4)
		}
		out[i] = float64(v) / span
	}
	return out
}

// path draws steps smoothly enough: a point in the middle of each span.
func path(v []float64, top float64) string {
	var b strings.Builder
	width := 1000 / float64(len(v))
	for i, y := range v {
		op, x := "L", (float64(i)+0.5)*width
		if i == 0 {
			fmt.Fprintf(&b, "M0 %.1f ", 200-200*y/top)
		}
		fmt.Fprintf(&b, "%s%.1f %.1f ", op, x, 200-200*y/top)
		if i == len(v)-1 {
			fmt.Fprintf(&b, "L1000 %.1f", 200-200*y/top)
		}
	}
	return b.String()
}

// nice rounds up to 1, 2 or 5 of a power of ten.
func nice(v float64, octets bool) float64 {
	if v <= 0 {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*p >= v && (octets || m*p >= 1) {
			return m * p
		}
	}
	return v
}

// niceTime rounds seconds to what a clock shows.
func niceTime(s float64) float64 {
	steps := []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400}
	for _, n := range steps {
		if n >= s {
			return n
		}
	}
	return math.Ceil(s/86400) * 86400
}

// number groups thousands.
func number(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes octets for people, in thousands.
func size(n int64) string {
	for _, u := range []struct {
		of   float64
		name string
	}{{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if float64(n) >= u.of {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/u.of), ".0") + " " + u.name
		}
	}
	return fmt.Sprintf("%d B", n)
}

// duration writes a time that passed.
func duration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour && d%time.Minute == 0:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < time.Hour:
		return fmt.Sprintf("%d:%02d min", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d:%02d h", int(d.Hours()), int(d.Minutes())%60)
}

func clock(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") }
