package plugintest

import (
	"context"

	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// InProcess runs the cases that a plugin can be tested with in this process.
func InProcess(ctx context.Context, d *direction, f Fixture) []Result {
	var out []Result
	for _, c := range casesOf(d, f) {
		out = append(out, c.try(ctx, d, f))
	}
	return out
}

func SourceHere[C any](p source.Plugin[C]) *direction { return direct(sourceOf(p)) }
func SinkHere[C any](p sink.Plugin[C]) *direction     { return direct(sinkOf(p)) }
func StageHere[C any](p stage.Plugin[C]) *direction   { return direct(stageOf(p)) }

// Direction is a way to a plugin.
type Direction = direction

// Raced reports whether memory can't be measured.
const Raced = raced
