package pluginhost

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A plugin that logs without end fills neither memory nor the log, and what is
// left out is counted.
func TestFloodsAreBounded(t *testing.T) {
	t.Parallel()
	const lines = 5000
	for name, line := range map[string]string{
		"plain lines":    "round and round we go",
		"long lines":     strings.Repeat("x", 10_000),
		"lines of JSON":  `{"level":"ERROR","msg":"round and round"}`,
		"long JSON":      `{"level":"ERROR","msg":"` + strings.Repeat("y", 9_000) + `","` + strings.Repeat("z", 9_000) + `":1}`,
		"not even UTF-8": strings.Repeat("\xff\x00", 9_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			o := newOutput(slog.New(slog.NewTextHandler(&log, nil)), &redactor{})
			began := time.Now()
			n := lines
			if len(line) > 1000 {
				n = lineBurst + 200
			}
			for range n {
				o.error(line)
			}
			o.end()
			shown := strings.Count(log.String(), "level=") - strings.Count(log.String(), "lines left out")
			if most := lineBurst + int(time.Since(began).Seconds()*lineRate) + 1; shown > most {
				t.Errorf("%d lines are shown, more than %d", shown, most)
			}
			left := 0
			for text := range strings.Lines(log.String()) {
				if len(text) > 8*valueLimit {
					t.Fatalf("a line has %d octets", len(text))
				}
				if _, count, ok := strings.Cut(text, `"lines left out"=`); ok {
					var k int
					if _, err := fmt.Sscan(count, &k); err != nil {
						t.Fatal(err)
					}
					left += k
				}
			}
			if shown+left != n {
				t.Errorf("%d lines are shown and %d left out of %d", shown, left, n)
			}
		})
	}
}
