//go:build judge

package convert_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
)

// TestJudge has msgcheck judge the .msg files: programs of others, in other
// languages, that read them and compare with the mail. .ci/judge installs it and
// runs this test. MAILHAUL_MSGCHECK names its folder; MAILHAUL_JUDGE=all has all
// four readers read every mail, which takes an hour or two.
func TestJudge(t *testing.T) {
	j := judge{home: os.Getenv("MAILHAUL_MSGCHECK")}
	if j.home == "" {
		t.Fatal("MAILHAUL_MSGCHECK isn't set: make judge sets it")
	}
	mails, hostile := corpus(t, "eml"), corpus(t, "hostile")
	samples, err := filepath.Glob(filepath.Join(j.home, "sample-eml", "*.eml"))
	if err != nil || len(samples) == 0 {
		t.Fatalf("no samples in %s: %v", j.home, err)
	}
	out := t.TempDir()
	plain := convertAll(t, filepath.Join(out, "corpus"), mails, convert.Options{})
	all := slices.Concat(plain,
		convertAll(t, filepath.Join(out, "rtf"), mails, convert.Options{RTF: true}),
		convertAll(t, filepath.Join(out, "hostile"), hostile, convert.Options{RTF: true}),
		convertAll(t, filepath.Join(out, "samples"), samples, convert.Options{}))
	t.Logf("%d .msg files of %d mails", len(all), len(mails)+len(hostile)+len(samples))

	t.Run("lint", func(t *testing.T) { inBatches(all, 300, func(files []string) { j.lint(t, files) }) })
	t.Run("OLE32", func(t *testing.T) {
		j.ole32(t, plain[:1]) // starts Wine's server, which two at once would do in each other's way
		inBatches(plain[1:], 100, func(files []string) { j.ole32(t, files) })
	})
	t.Run("four readers, samples", func(t *testing.T) {
		inBatches(samples, 2, func(mails []string) {
			for name, v := range j.crosscheck(t, mails, filepath.Join(out, "samples"), four) {
				if len(v.Faults) > 0 {
					t.Errorf("%s: %q", name, v.Faults)
				}
			}
		})
	})
	listed := disagreements(t)
	t.Run("one reader, all mails", func(t *testing.T) {
		inBatches(mails, 100, func(mails []string) {
			for name, v := range j.crosscheck(t, mails, filepath.Join(out, "corpus"), []string{"gomsg"}) {
				if want := listed[name].all(); !slices.Equal(v.Faults, want) {
					t.Errorf("%s: the reader disagrees on %q, testdata/judge.tsv lists %q", name, v.Faults, want)
				}
			}
		})
	})
	some := mails
	if os.Getenv("MAILHAUL_JUDGE") != "all" {
		some = everyNth(mails, 50)
	}
	t.Run("four readers", func(t *testing.T) {
		var faulty counter
		inBatches(some, 5, func(mails []string) {
			for name, v := range j.crosscheck(t, mails, filepath.Join(out, "corpus"), four) {
				want := listed[name].most
				if !slices.Equal(v.Faults, want) {
					t.Errorf("%s: most readers disagree on %q, testdata/judge.tsv lists %q", name, v.Faults, want)
				}
				if len(v.Faults) > 0 {
					faulty.add()
				}
			}
		})
		t.Logf("%d of %d mails without a writer fault", len(some)-faulty.n, len(some))
	})
}

type judge struct{ home string }

var four = []string{"gomsg", "kenji", "msgconvert", "poi"}

// verdict is what crosscheck says of one mail.
type verdict struct {
	Faults []string `json:"writer_faults"`
}

// crosscheck has the readers read the .msg files of the mails.
func (j judge) crosscheck(t *testing.T, mails []string, folder string, readers []string) map[string]verdict {
	t.Helper()
	some, err := os.MkdirTemp("", "judge")
	if err != nil {
		t.Error(err)
		return nil
	}
	defer func() {
		if err := os.RemoveAll(some); err != nil {
			t.Error(err)
		}
	}()
	for _, mail := range mails {
		if err := os.Symlink(mail, filepath.Join(some, filepath.Base(mail))); err != nil {
			t.Error(err)
			return nil
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(j.home, "crosscheck"), "--batch", some, folder, "--readers", strings.Join(readers, ","))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	out := map[string]verdict{}
	lines := bufio.NewScanner(bytes.NewReader(stdout))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var v struct {
			verdict
			Mail    string `json:"eml"`
			Verdict string `json:"verdict"`
			Readers map[string]struct {
				Error string `json:"error"`
			} `json:"readers"`
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Errorf("crosscheck: %v", err)
			return nil
		}
		for _, r := range readers {
			if got, ok := v.Readers[r]; !ok || got.Error != "" {
				t.Errorf("%s: the reader %s: %q, %s", v.Mail, r, got.Error, v.Verdict)
			}
		}
		out[v.Mail] = v.verdict
	}
	if len(out) != len(mails) {
		t.Errorf("crosscheck judged %d of %d mails (%v): %s", len(out), len(mails), err, stderr.Bytes())
	}
	return out
}

// lint demands that msglint finds neither an error nor a warning.
func (j judge) lint(t *testing.T, files []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{filepath.Join(j.home, "msglint"), "--json"}, files...)...)
	out, err := cmd.Output()
	seen := 0
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); seen++ {
		var v struct {
			File     string     `json:"file"`
			Findings [][]string `json:"findings"`
		}
		if err := d.Decode(&v); err != nil {
			t.Errorf("msglint: %v", err)
			return
		}
		for _, f := range v.Findings {
			if f[0] != "I" {
				t.Errorf("%s: %s", v.File, strings.Join(f, " "))
			}
		}
	}
	if seen != len(files) {
		t.Errorf("msglint judged %d of %d files: %v", seen, len(files), err)
	}
}

// ole32 has Wine's OLE32 open every element by its name.
func (j judge) ole32(t *testing.T, files []string) {
	t.Helper()
	var out []byte
	var err error
	for range 3 {
		cmd := exec.CommandContext(t.Context(), filepath.Join(j.home, "crosscheck"), append([]string{"--wine"}, files...)...)
		if out, err = cmd.Output(); len(out) > 0 {
			break
		}
		// No word of any file: Wine itself didn't start, as when its server
		// is just ending.
		t.Logf("Wine didn't start: %v", err)
	}
	good := 0
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, " 0 bad") {
			good++
		} else {
			t.Errorf("OLE32: %s", line)
		}
	}
	if good != len(files) || err != nil {
		t.Errorf("OLE32 read %d of %d files: %v", good, len(files), err)
	}
}

// convertAll writes a .msg of each mail to the folder, but of those that are
// dead letters.
func convertAll(t *testing.T, folder string, mails []string, o convert.Options) []string {
	t.Helper()
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	var out []string
	c := convert.New(o)
	for _, file := range mails {
		mail, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := write(c, mail, convert.Envelope{})
		if err != nil {
			t.Logf("%s: %v", filepath.Base(file), err)
			continue
		}
		name := filepath.Join(folder, strings.TrimSuffix(filepath.Base(file), ".eml")+".msg")
		if err := os.WriteFile(name, msg, 0o644); err != nil {
			t.Fatal(err)
		}
		out = append(out, name)
	}
	return out
}

// inBatches calls f with so many items at a time, on all cores.
func inBatches(items []string, size int, f func([]string)) {
	var wg sync.WaitGroup
	free := make(chan struct{}, runtime.NumCPU())
	for batch := range slices.Chunk(items, size) {
		free <- struct{}{}
		wg.Go(func() {
			f(batch)
			<-free
		})
	}
	wg.Wait()
}

func everyNth(items []string, n int) []string {
	var out []string
	for i := 0; i < len(items); i += n {
		out = append(out, items[i])
	}
	return out
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
}
