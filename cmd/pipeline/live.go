package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/livepage"
	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// live is the page of a run that is shown while it goes on. Its methods do
// nothing when none was asked for.
type live struct {
	door   *livepage.Door
	board  *livepage.Board
	server *livepage.Server
}

// openPage takes the address of --ui: one that is taken is worth knowing before
// anything else begins.
func openPage(ctx context.Context, f runFlags) (*live, error) {
	switch {
	case f.ui == "" && f.uiRemote:
		return nil, fault.New(fault.Config, "--ui-remote without --ui").WithHint("give the address as well, as in --ui 0.0.0.0:8080")
	case f.ui == "":
		return &live{}, nil
	case f.dry:
		return nil, fault.New(fault.Config, "--ui with --dry-run: nothing is exported that a page could show").WithHint("leave out one of them")
	}
	door, err := livepage.Open(ctx, f.ui, f.uiRemote)
	return &live{door: door}, err
}

// show begins to show a run, and tells where.
func (p *live) show(c *command, j *job.Job, number int64, began time.Time, stats *engine.Stats, timeline func() report.Timeline) {
	if p.door == nil {
		return
	}
	r := livepage.Run{
		Pipeline: j.Plan.Name, Number: number, File: c.file, Version: version(), Began: began, Left: j.BadRows(), Stats: stats, Timeline: timeline,
	}
	for i := range j.Plan.Sources {
		r.Sources = append(r.Sources, j.Plan.Sources[i].Name)
	}
	p.board = livepage.NewBoard(r)
	p.server = livepage.Serve(p.door, p.board, c.logger())
	fmt.Fprintf(c.err, "watch the run at %s\n", p.door.URL())
}

// event is for the engine's events.
func (p *live) event(e engine.Event) {
	if p.board != nil {
		p.board.Event(e)
	}
}

// end shows how the run ended.
func (p *live) end(r *engine.Result, exit int) {
	if p.board != nil {
		p.board.End(r, exit)
	}
}

// close ends the page, once those who look at it know how the run ended.
func (p *live) close() {
	switch {
	case p.server != nil:
		p.server.Close()
		p.board.Close()
	case p.door != nil:
		p.door.Close()
	}
}
