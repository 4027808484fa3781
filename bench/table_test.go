package bench

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// row is a program with its runs, in the order of the rounds.
type row struct {
	tool   Tool
	runs   []Run
	failed error // it, and not the benchmark
}

// write writes one table as Markdown. Ratios are of ours to the other in the
// same round, and then the median over the rounds: the machine's speed drifts
// from round to round, and the ratio doesn't.
func (t Table) write(w io.Writer, rows []row, missing []string) {
	fmt.Fprintf(w, "\n## %s\n\n| | wall, s (min–max) | CPU, s | server's CPU, s | peak RSS, MiB | ours ÷ this, wall | ours ÷ this, CPU |\n|---|---|---|---|---|---|---|\n", t.Name)
	for _, r := range rows {
		walls := seconds(r.runs, func(r Run) time.Duration { return r.Wall })
		var rss int64
		var wall, cpu []float64
		for i, run := range r.runs {
			rss = max(rss, run.RSS)
			ours := rows[0].runs[i]
			wall = append(wall, ours.Wall.Seconds()/run.Wall.Seconds())
			if run.CPU > 0 {
				cpu = append(cpu, ours.CPU.Seconds()/run.CPU.Seconds())
			}
		}
		fmt.Fprintf(w, "| %s | %.2f (%.2f–%.2f) | %.2f | %.2f | %d | %.2f | %.2f |\n", r.tool.Name,
			median(walls), slices.Min(walls), slices.Max(walls),
			median(seconds(r.runs, func(r Run) time.Duration { return r.CPU })),
			median(seconds(r.runs, func(r Run) time.Duration { return r.Server })),
			rss>>20, median(wall), median(cpu))
	}
	var foreign []float64
	for _, r := range rows {
		for _, run := range r.runs {
			foreign = append(foreign, run.Foreign.Seconds()/run.Wall.Seconds())
		}
	}
	fmt.Fprintf(w, "\nOthers on the machine took %.2f cores meanwhile (median; at most %.2f).\n", median(foreign), slices.Max(foreign))
	for _, m := range missing {
		fmt.Fprintf(w, "Not there: %s.\n", m)
	}
}

func seconds(runs []Run, of func(Run) time.Duration) []float64 {
	out := make([]float64, len(runs))
	for i, r := range runs {
		out[i] = of(r).Seconds()
	}
	return out
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
