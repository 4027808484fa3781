package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestTax runs the same exports by the same engine twice: with the plugins as
// processes, and with the connectors linked into the engine's own process. What
// the first takes more is the tax of being separate. TAX_ROUNDS is how often, in
// turn; unset, it is a test of the benchmark: a hundredth of the mail, once, and
// the figures mean nothing. TAX_ONLY names one workload. BENCH_OUT is where to,
// BENCH_RESULT the Markdown file, TAX_PPROF a folder for profiles of every run.
func TestTax(t *testing.T) {
	rounds, part := 1, 0.01
	if n, err := strconv.Atoi(os.Getenv("TAX_ROUNDS")); err == nil && n > 0 {
		rounds, part = n, 1
	}
	var workloads []Workload
	var tables []Table
	byName := map[string]Workload{}
	for _, w := range Workloads(part) {
		if only := os.Getenv("TAX_ONLY"); only == "" || only == w.Name {
			workloads, tables = append(workloads, w), append(tables, Table{Workload: w.Name})
			byName[w.Name] = w
		}
	}
	b := bed{server: serve(t, byName, tables), bin: build(t, "./plugins/pipeline-source-imap", "./plugins/pipeline-sink-eml")}
	link(t, filepath.Join(b.bin, "inprocess"))
	pid := serverProcess(t, b.server)

	var out bytes.Buffer
	fmt.Fprintf(&out, "| workload | processes: CPU, s (min–max) | linked: CPU, s (min–max) | CPU ÷ CPU (min–max) | wall ÷ wall (min–max) | others on the machine, cores |\n|---|---|---|---|---|---|\n")
	for _, w := range workloads {
		b.user = w.Name
		runs := map[string][]Run{}
		for round := range rounds {
			order := []string{"processes", "linked"}
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, how := range order {
				runs[how] = append(runs[how], taxed(t, b, pid, w, how))
			}
		}
		taxRow(&out, w.Name, runs["processes"], runs["linked"])
		t.Logf("%s done", w.Name)
	}
	if file := os.Getenv("BENCH_RESULT"); file != "" {
		if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Log("\n" + out.String())
}

// link builds the program that can run both ways. It and the two packages that
// show it the connectors are files of testdata, and in their places only in the
// overlay: no program of the product can do it.
func link(t *testing.T, to string) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	place := map[string]string{}
	for file, at := range map[string]string{
		"main.go": "bench/inprocess/main.go",
		"imap.go": "plugins/pipeline-source-imap/linked/linked.go",
		"eml.go":  "plugins/pipeline-sink-eml/linked/linked.go",
	} {
		place[filepath.Join(root, at)] = filepath.Join(root, "bench", "testdata", "inprocess", file)
	}
	text, err := json.Marshal(map[string]any{"Replace": place})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-overlay", overlay, "-trimpath", "-buildvcs=false", "-o", to, "./bench/inprocess")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the engine with its connectors linked: %v\n%s", err, out)
	}
}

// taxed is one run into a fresh directory. What plugins say of themselves is
// asked for before the clock starts; starting them for the work is in it.
func taxed(t *testing.T, b bed, server int, w Workload, how string) Run {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("BENCH_OUT"), "tax")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if _, err := ours("imap", 2, eml).Command(b, dir); err != nil { // writes the file
		t.Fatal(err)
	}
	command := func(how string) Run {
		cmd := exec.Command(filepath.Join(b.bin, "inprocess"), "-how", how)
		if p := os.Getenv("TAX_PPROF"); p != "" && how != "ask" {
			cmd.Args = append(cmd.Args, "-pprof", filepath.Join(p, w.Name, how))
		}
		cmd.Dir = dir
		run, err := measure(cmd, server)
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	command("ask")
	warm(w)
	run := command(how)
	if got, want := messagesIn(t, filepath.Join(dir, "out")), all(w); got != want {
		t.Fatalf("%s wrote %d messages, want %d", how, got, want)
	}
	return run
}

// taxRow writes a line of the table. Ratios are of two runs in the same round.
func taxRow(out *bytes.Buffer, name string, processes, linked []Run) {
	cpu := func(r Run) time.Duration { return r.CPU }
	var byCPU, byWall, foreign []float64
	for i, p := range processes {
		l := linked[i]
		byCPU = append(byCPU, p.CPU.Seconds()/l.CPU.Seconds())
		byWall = append(byWall, p.Wall.Seconds()/l.Wall.Seconds())
		for _, r := range []Run{p, l} {
			foreign = append(foreign, r.Foreign.Seconds()/r.Wall.Seconds())
		}
	}
	spread := func(v []float64) string {
		return fmt.Sprintf("%.2f (%.2f–%.2f)", median(v), slices.Min(v), slices.Max(v))
	}
	fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %.2f |\n", name, spread(seconds(processes, cpu)), spread(seconds(linked, cpu)), spread(byCPU), spread(byWall), median(foreign))
}
