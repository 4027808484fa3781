package bench

import (
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the ledger is looked into as a user would

	"github.com/mailhaul/pipeline/test/program"
)

// What growth is held to.
const (
	growthRSS    = 150 << 20   // octets of the host, whatever the number of messages
	growthRow    = 64          // octets of the ledger a message, receipts apart
	growthAgain  = time.Second // CPU of status, and of a run that finds nothing new
	growthLinear = 1.3         // CPU a message at the most, to that at the fewest
)

// TestGrowth exports more and more messages of a source that makes them, and
// shows that time is linear, memory flat, the ledger small, and that status and
// a run with nothing new don't feel the number. GROWTH is the numbers, smallest
// first; unset, it is a test of the benchmark: few messages, and times mean
// nothing. BENCH_OUT is where to.
func TestGrowth(t *testing.T) {
	sizes, full := sizesOf(t, "GROWTH", 100, 1000)
	bin := build(t, "./cmd/pipeline", "./plugins/pipeline-sink-eml", "./test/crash/pipeline-source-synthetic")
	t.Logf("| messages | wall, s | CPU, s | CPU a message, µs | host's peak RSS, MiB | all processes, MiB | ledger, octets a message (receipts apart) | nothing new, s (CPU) | status, s (CPU) |")
	t.Logf("|---|---|---|---|---|---|---|---|---|")
	var first float64
	for _, n := range sizes {
		g := grow(t, bin, n)
		each := g.run.CPU.Seconds() * 1e6 / float64(n)
		t.Logf("| %d | %.1f | %.1f | %.0f | %d | %d | %.1f (%.1f with receipts) | %.2f (%.2f) | %.2f (%.2f) |", n, g.run.Wall.Seconds(), g.run.CPU.Seconds(), each,
			g.host>>20, g.run.RSS>>20, g.row, g.whole, g.again.Wall.Seconds(), g.again.CPU.Seconds(), g.status.Wall.Seconds(), g.status.CPU.Seconds())
		t.Logf("ledger by use: %s", g.uses)
		if g.host > growthRSS {
			t.Errorf("%d messages: the host took %d MiB, want at most %d", n, g.host>>20, growthRSS>>20)
		}
		if !full {
			continue
		}
		if n >= 100_000 && g.row > growthRow { // below, the empty tables are the most of it
			t.Errorf("%d messages: the ledger takes %.1f octets a message, receipts apart, want at most %d", n, g.row, growthRow)
		}
		if g.again.CPU > growthAgain || g.status.CPU > growthAgain {
			t.Errorf("%d messages: a run with nothing new took %s of CPU, status %s; want at most %s", n, g.again.CPU, g.status.CPU, growthAgain)
		}
		if first == 0 {
			first = each
		}
		if each > growthLinear*first {
			t.Errorf("%d messages: %.0f µs of CPU each, %.1f × what %d messages took", n, each, each/first, sizes[0])
		}
	}
}

// growth is what one number of messages took.
type growth struct {
	run, again, status Run
	host               int64   // octets: the host's own peak
	row, whole         float64 // octets of the ledger a message, without receipts and with
	uses               string
}

func grow(t *testing.T, bin string, n int) (g growth) {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("BENCH_OUT"), "growth")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "pipeline.yaml")
	yaml := fmt.Sprintf(`version: 1
name: growth
state: state
sources:
  - {name: made, plugin: synthetic, config: {messages: %d, size: 500}}
sinks:
  - {name: eml, plugin: eml, config: {path: out}}
`, n)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) Run {
		cmd := exec.Command(filepath.Join(bin, "pipeline"), append(args, "-c", file)...)
		ended := make(chan struct{})
		peak := make(chan int64, 1)
		go func() { peak <- highest(cmd, ended) }()
		run, err := measure(cmd, 0)
		close(ended)
		g.host = max(g.host, <-peak)
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	g.run = command("run", "--quiet")
	host := g.host
	g.again = command("run", "--quiet")
	g.status = command("status")
	g.host = host

	files, receipts := 0, 0
	root := filepath.Join(dir, "out")
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".eml" {
			files++
			receipts += len(path) - len(root) - 1
		}
		return err
	})
	if err != nil || files != n {
		t.Fatalf("%d files of %d messages: %v", files, n, err)
	}
	var all int64
	g.uses, all = uses(t, filepath.Join(dir, "state"))
	g.whole, g.row = float64(all)/float64(n), float64(all-int64(receipts))/float64(n)
	return g
}

// highest watches a command's own peak of memory until it has ended.
func highest(cmd *exec.Cmd, ended <-chan struct{}) (peak int64) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ended:
			return peak
		case <-look.C:
		}
		for _, p := range program.Children(os.Getpid()) {
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p))
			if err != nil || strings.TrimSpace(string(name)) != filepath.Base(cmd.Path) {
				continue
			}
			peak = max(peak, program.Peak(p))
		}
	}
}

// uses says what the ledger's pages are used for, the most first.
func uses(t *testing.T, state string) (string, int64) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(state, "*.db"))
	if len(files) != 1 {
		t.Fatalf("ledgers: %v", files)
	}
	db, err := sql.Open("sqlite", "file:"+files[0]+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT name, sum(pgsize) AS octets FROM dbstat GROUP BY name ORDER BY octets DESC")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var parts []string
	var all int64
	for rows.Next() {
		var name string
		var octets int64
		if err := rows.Scan(&name, &octets); err != nil {
			t.Fatal(err)
		}
		if all += octets; len(parts) < 4 {
			parts = append(parts, fmt.Sprintf("%s %d", name, octets))
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(parts, ", "), all
}
