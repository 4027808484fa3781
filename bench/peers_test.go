package bench

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/program"
)

// TestPeers runs every table. With BENCH_ROUNDS=0, which is what an unset one
// means, it is a test of the benchmark: a hundredth of the mail, one round,
// and the figures mean nothing. BENCH_ONLY is a regular expression for the
// tables' names, BENCH_OUT the directory that is written to, BENCH_RESULT the
// Markdown file, BENCH_PART how much of the mail there is. BENCH_SLOW=no leaves
// out the programs that take minutes for a run.
func TestPeers(t *testing.T) {
	rounds, part := 1, 0.01
	if n, err := strconv.Atoi(os.Getenv("BENCH_ROUNDS")); err == nil && n > 0 {
		rounds, part = n, 1
	}
	if p, err := strconv.ParseFloat(os.Getenv("BENCH_PART"), 64); err == nil && p > 0 {
		part = p
	}
	only := regexp.MustCompile(os.Getenv("BENCH_ONLY"))
	var tables []Table
	for _, table := range Tables() {
		if only.MatchString(table.Name) {
			tables = append(tables, table)
		}
	}
	workloads := map[string]Workload{}
	for _, w := range Workloads(part) {
		workloads[w.Name] = w
	}
	server := serve(t, workloads, tables)
	b := bed{server: server, bin: build(t, "./cmd/pipeline", "./plugins/pipeline-source-imap", "./plugins/pipeline-source-pop3",
		"./plugins/pipeline-sink-eml", "./plugins/pipeline-sink-json", "./bench/drain")}
	pid := serverProcess(t, server)

	var result bytes.Buffer
	head(&result, rounds)
	for _, table := range tables {
		rows, missing := installed(table, os.Getenv("BENCH_ROUNDS") != "" && os.Getenv("BENCH_SLOW") != "no")
		b.user, b.tls = table.Workload, table.TLS
		if len(rows) > 0 {
			// Not timed: a server remembers what it is asked for the first time,
			// which takes it a second and would all be the first tool's.
			if _, err := once(t, rows[0].tool, b, pid, workloads[table.Workload]); err != nil {
				t.Fatal(err)
			}
		}
		for range rounds {
			for i := range rows {
				if rows[i].failed != nil {
					continue
				}
				run, err := once(t, rows[i].tool, b, pid, workloads[table.Workload])
				if err != nil && !rows[i].tool.Slow {
					t.Fatal(err)
				}
				rows[i].runs, rows[i].failed = append(rows[i].runs, run), err
			}
		}
		rows = slices.DeleteFunc(rows, func(r row) bool {
			if r.failed != nil {
				missing = append(missing, r.tool.Name+" (it failed: "+strings.Join(strings.Fields(r.failed.Error()), " ")+")")
			}
			return r.failed != nil
		})
		table.write(&result, rows, missing)
		t.Logf("%s done", table.Name)
	}
	if file := os.Getenv("BENCH_RESULT"); file != "" {
		if err := os.WriteFile(file, result.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(result.String())
}

// serve starts the server with the mail that the tables want.
func serve(t *testing.T, workloads map[string]Workload, tables []Table) *dovecot.Server {
	t.Helper()
	wanted := map[string]bool{}
	for _, table := range tables {
		wanted[table.Workload] = true
	}
	server := dovecot.Start(t, dovecot.Options{Users: slices.Sorted(maps.Keys(wanted))})
	for name := range wanted {
		workloads[name].Deliver(func(mailbox string, raw []byte, date time.Time) { server.Deliver(name, mailbox, raw, date) })
	}
	return server
}

// installed are the rows of a table, and the tools that aren't there.
func installed(table Table, slow bool) (rows []row, missing []string) {
	for _, tool := range table.Tools {
		if tool.Slow && !slow {
			continue // a test of the benchmark isn't one of theirs
		}
		if _, err := exec.LookPath(tool.Needs); err != nil {
			missing = append(missing, tool.Name)
			continue
		}
		rows = append(rows, row{tool: tool})
	}
	return rows, missing
}

// once runs one tool into a fresh directory, and looks whether it did the work.
func once(t *testing.T, tool Tool, b bed, server int, w Workload) (Run, error) {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("BENCH_OUT"), "bench")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	times := 1
	if tool.Again {
		times = 2
	}
	var run Run
	for range times {
		cmd, err := tool.Command(b, dir)
		if err != nil {
			t.Fatal(err)
		}
		warm(w)
		if run, err = measure(cmd, server); err != nil {
			return run, fmt.Errorf("%s: %w", tool.Name, err)
		}
	}
	if tool.Files != nil {
		if got, want := messagesIn(t, filepath.Join(dir, "out")), tool.Files(w); got != want {
			return run, fmt.Errorf("%s wrote %d messages, want %d", tool.Name, got, want)
		}
	}
	return run, nil
}

// messagesIn counts the files that hold a message: .eml, or any in a Maildir's
// cur and new.
func messagesIn(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		in := filepath.Base(filepath.Dir(path))
		if err == nil && d.Type().IsRegular() && (filepath.Ext(path) == ".eml" || in == "cur" || in == "new") {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// build builds programs as a release is built.
func build(t *testing.T, packages ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := (program.Build{To: dir}).Run(packages...); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serverProcess is the process that all of the server's descend from.
func serverProcess(t *testing.T, s *dovecot.Server) int {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(s.Dir, "run", "master.pid"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// head says where and with what the figures were got.
func head(w *bytes.Buffer, rounds int) {
	first := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			return name + " (not installed)"
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return line
	}
	model := "unknown CPU"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(info), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			model = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	fmt.Fprintf(w, "# Side by side, %s\n\n%d × %s, %s, %s, Dovecot %s, %s, %s, offlineimap %s, %s, %s; medians of %d round(s), all tools in turn in each.\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), model, first("uname", "-sr"), runtime.Version(),
		first("dovecot", "--version"), first("mbsync", "--version"), first("mpop", "--version"),
		first("offlineimap", "--version"), first("getmail", "--version"), first("fetchmail", "--version"), rounds)
}
