package job

import (
	"context"
	"encoding/json"

	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// OpenShare opens a source for one of so many workers that share its account:
// with one connection, and its part of the pace that the file sets.
func (j *Job) OpenShare(ctx context.Context, s *plan.Source, share int, isolated bool) (source.Opened, error) {
	session, ok := j.sources[s.Name]
	if !ok {
		var err error
		if session, err = j.late(ctx, s.Name); err != nil {
			return source.Opened{}, err
		}
	}
	var c map[string]any
	if err := json.Unmarshal(session.Config, &c); err != nil {
		return source.Opened{}, fault.New(fault.Bug, "read the config of source %s: %w", s.Name, err)
	}
	changes, err := j.applicable(ctx, session.Plugin, []Change{{Key: "connections", Value: 1, Optional: true}})
	if err != nil {
		return source.Opened{}, err
	}
	for _, change := range changes {
		c[change.Key] = change.Value
	}
	sharePace(c, share)
	if session.Config, err = json.Marshal(c); err != nil {
		return source.Opened{}, fault.New(fault.Bug, "write the config of source %s: %w", s.Name, err)
	}
	opened, err := j.host.OpenSource(ctx, session, isolated)
	if err != nil {
		return opened, j.placeSource(s.Name, err)
	}
	return opened, nil
}

// sharePace leaves a source's config one worker's part of the pace that the
// account has. Sources that are paced have the field "rate", of rates by what
// they limit.
func sharePace(config map[string]any, share int) {
	rates, ok := config["rate"].(map[string]any)
	if !ok || share < 2 {
		return
	}
	for key, v := range rates {
		text, ok := v.(string)
		if !ok {
			continue
		}
		if r, err := spec.ParseRate(text); err == nil && !r.IsZero() {
			r.PerSecond /= float64(share)
			rates[key] = r.String()
		}
	}
}

// checkFenced finds sinks that workers can't write to together, where they are
// to.
func (j *Job) checkFenced() error {
	if !j.File.Engine.Shared() {
		return nil
	}
	return j.place(j.Plan.CheckFenced())
}

// Bucket returns the bucket for the ledgers of tasks, and what its objects'
// names begin with. It starts the store of objects.
func (j *Job) Bucket() (*objects.Bucket, string, error) {
	at, err := objects.Parse(j.File.Engine.Objects)
	if err != nil {
		return nil, "", j.File.Place("engine.objects", err)
	}
	socket, err := j.host.Store()
	if err != nil {
		return nil, "", err
	}
	b, err := objects.Dial(socket, at)
	prefix := "ledger/"
	if at.Prefix != "" {
		prefix = at.Prefix + "/" + prefix
	}
	return b, prefix, err
}

// SettleEngine evaluates the references of the file's engine, for a verb that
// needs no more of it.
func (j *Job) SettleEngine(ctx context.Context) error { return j.File.SettleEngine(ctx, j.values) }
