package livepage

import (
	"strconv"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/progress"
	"github.com/mailhaul/pipeline/internal/report"
)

// frame is one event of the stream: what changed since the page's last one.
// What didn't is left out.
type frame struct {
	Board   string `json:"id"`
	Version int64  `json:"v"`
	Now     int64  `json:"now"` // milliseconds, as are all times

	Run      *runFrame        `json:"run,omitempty"` // of the first frame: all else begins anew
	State    string           `json:"state"`         // running, stopping or ended
	End      *endFrame        `json:"end,omitempty"`
	Where    *whereFrame      `json:"where,omitempty"`
	Accounts []accountFrame   `json:"accounts,omitempty"`
	States   map[string]int   `json:"states"`          // how many accounts
	Boxes    map[string][]any `json:"boxes,omitempty"` // of accounts that are open on the page, by index
	Failures []failure        `json:"failures"`        // null: as they were
	News     []newsFrame      `json:"news,omitempty"`
	Chart    *report.Chart    `json:"chart,omitempty"`
}

type runFrame struct {
	Pipeline string `json:"pipeline"`
	Number   int64  `json:"number"`
	File     string `json:"file"`
	Version  string `json:"version"`
	Began    int64  `json:"began"`
	Accounts int    `json:"accounts"`
}

type endFrame struct {
	At    int64  `json:"at"`
	Exit  int    `json:"exit"`
	Text  string `json:"text"`
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

type whereFrame struct {
	progress.Progress
	Messages float64       `json:"messages_per_second"`
	Sum      []any         `json:"sum"` // see report.Numbers
	Standing int64         `json:"standing"`
	Parts    []report.Term `json:"parts"`
	Boxes    int           `json:"boxes"`
}

// accountFrame is a row, short since there may be thousands.
type accountFrame struct {
	Index   int    `json:"i"`
	Name    string `json:"s"`
	State   string `json:"t"`
	Until   int64  `json:"u,omitempty"`
	Error   string `json:"e,omitempty"`
	Hint    string `json:"h,omitempty"`
	URL     string `json:"a,omitempty"`
	Boxes   int    `json:"b"`
	Numbers []any  `json:"n"` // see report.Numbers
}

type newsFrame struct {
	At   int64  `json:"at"`
	Text string `json:"t"`
	Bad  bool   `json:"bad,omitempty"`
}

// frame returns what changed since a version, with the mailboxes of accounts
// that the page has open since another. A page that knows nothing yet has
// version 0.
func (b *Board) frame(since int64, open []int, shown int64) frame {
	now := time.Now()
	b.mu.Lock()
	f := frame{Board: b.id, Version: b.version, Now: now.UnixMilli(), State: "running", States: map[string]int{}}
	if since == 0 {
		f.Run = &runFrame{
			Pipeline: b.run.Pipeline, Number: b.run.Number, File: b.run.File, Version: b.run.Version,
			Began: b.run.Began.UnixMilli(), Accounts: len(b.accounts),
		}
	}
	switch {
	case b.ended != nil:
		f.State = "ended"
		f.End = &endFrame{At: b.ended.at.UnixMilli(), Exit: b.ended.exit, Text: b.ended.text, Error: b.ended.error, Hint: b.ended.hint}
	case b.stopping:
		f.State = "stopping"
	}
	f.Where = b.whereFrame(f.States)
	for _, a := range b.accounts {
		if a.version > since {
			f.Accounts = append(f.Accounts, a.frame())
		}
	}
	if b.failed > since || since == 0 {
		f.Failures = b.failures()
	}
	for _, h := range b.news {
		if h.version > since {
			f.News = append(f.News, newsFrame{h.At.UnixMilli(), h.Text, h.Bad})
		}
	}
	took, timeline, draw := now.Sub(b.run.Began), b.timeline, b.drawn > since
	if b.ended != nil {
		took = b.ended.at.Sub(b.run.Began)
	}
	var read []*account
	for _, i := range open {
		if i >= 0 && i < len(b.accounts) && b.accounts[i].version > shown {
			read = append(read, b.accounts[i])
		}
	}
	b.mu.Unlock()
	if draw {
		chart := report.NewChart(timeline, took)
		f.Chart = &chart
	}
	for _, a := range read {
		if f.Boxes == nil {
			f.Boxes = map[string][]any{}
		}
		f.Boxes[strconv.Itoa(a.index)] = b.boxes(a)
	}
	return f
}

func (b *Board) whereFrame(states map[string]int) *whereFrame {
	sum, boxes := report.NewSum(), 0
	w := whereFrame{Progress: b.where, Messages: b.messages}
	w.Accounts, w.Ended, w.AtWork, w.Waiting = len(b.accounts), 0, 0, 0
	for _, a := range b.accounts {
		sum.Add(&a.sum)
		boxes += a.boxes
		states[a.state()]++
		switch {
		case a.phase == done && !a.died, a.phase == failed:
			w.Ended++
		case a.atWork():
			w.AtWork++
		default:
			w.Waiting++
		}
	}
	w.Sum, w.Standing, w.Parts, w.Boxes = report.Numbers(&sum), sum.Standing, report.Terms(&sum), boxes
	return &w
}

func (a *account) frame() accountFrame {
	f := accountFrame{Index: a.index, Name: a.name, State: a.state(), Error: a.err, Hint: a.hint, URL: a.url, Boxes: a.boxes, Numbers: report.Numbers(&a.sum)}
	if !a.until.IsZero() {
		f.Until = a.until.UnixMilli()
	}
	return f
}

// mostBoxes bounds the mailboxes of one account on the page.
const mostBoxes = 500

// boxes reads where the mailboxes of an account stand.
func (b *Board) boxes(a *account) []any {
	if a.left {
		return []any{}
	}
	boxes, excluded := b.run.Stats.Mailboxes(a.name)
	seen := report.OfAccount(&engine.Account{Source: a.name, Began: true, Mailboxes: boxes, Excluded: excluded})
	out := report.Boxes(&seen)
	if more := len(out) - mostBoxes; more > 0 {
		out = append(out[:mostBoxes:mostBoxes], more)
	}
	return out
}
