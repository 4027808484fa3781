package convert_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// judge hands a folder of .msg files to msgcheck, a judge of its own in
// another language, which MAILHAUL_MSGCHECK names: its lint must find nothing,
// and its fastest reader must read what the mail says but for the disagreements in testdata/judge.tsv, each of which
// has its reason there. It must have been installed (its install.sh).
func judge(t *testing.T, home, mails, folder string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.msg"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", folder, err)
	}
	for batch := range slices.Chunk(files, 300) {
		lint(t, home, batch)
	}
	listed := disagreements(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(home, "crosscheck"), "--batch", mails, folder, "--readers", "gomsg")
	out, err := cmd.Output()
	if len(out) == 0 {
		t.Fatalf("crosscheck says nothing: %v", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var v struct {
			Mail    string   `json:"eml"`
			Verdict string   `json:"verdict"`
			Faults  []string `json:"writer_faults"`
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		got, want := strings.Join(v.Faults, " "), listed[v.Mail]
		if v.Verdict == "missing-msg" {
			t.Errorf("%s: no .msg", v.Mail)
		}
		if got != want {
			t.Errorf("%s: the reader disagrees on %q, testdata/judge.tsv lists %q", v.Mail, got, want)
		}
	}
}

func lint(t *testing.T, home string, files []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{filepath.Join(home, "msglint"), "--json"}, files...)...)
	out, err := cmd.Output()
	if len(out) == 0 {
		t.Fatalf("msglint says nothing: %v", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var v struct {
			File     string     `json:"file"`
			Findings [][]string `json:"findings"`
		}
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		for _, f := range v.Findings {
			t.Errorf("%s: %s", filepath.Base(v.File), strings.Join(f, " "))
		}
	}
}

// disagreements reads the list: mail -> fields.
func disagreements(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "judge.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 || f[3] == "" {
			t.Fatalf("testdata/judge.tsv: %q hasn't four columns", line)
		}
		out[f[0]] = f[1]
	}
	return out
}
