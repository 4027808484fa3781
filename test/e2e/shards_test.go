package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// kubernetesJob is what of an indexed Job decides what runs.
type kubernetesJob struct {
	Kind string
	Spec struct {
		CompletionMode string `yaml:"completionMode"`
		Completions    int
		Template       struct {
			Spec struct {
				Containers []struct{ Args []string }
			}
		}
	}
}

// TestShards runs the pods of examples/kubernetes as processes side by side,
// one of which is killed and comes again: what they export together is what one
// run without shards does (I2).
func TestShards(t *testing.T) {
	t.Parallel()
	example := filepath.Join("..", "..", "examples", "kubernetes")
	manifest, err := os.ReadFile(filepath.Join(example, "job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var pods kubernetesJob
	decoder := yaml.NewDecoder(bytes.NewReader(manifest))
	for pods.Kind != "Job" {
		pods = kubernetesJob{}
		if err := decoder.Decode(&pods); err != nil {
			t.Fatalf("there is no Job: %v", err)
		}
	}
	shards := pods.Spec.Completions
	if pods.Spec.CompletionMode != "Indexed" || shards < 2 {
		t.Fatalf("the Job isn't indexed: %+v", pods.Spec)
	}
	file, err := os.ReadFile(filepath.Join(example, "pipeline.yaml"))
	if err != nil {
		t.Fatal(err)
	}

	const accounts, each = 13, 4
	users, table := []string{}, "user\n"
	for i := range accounts {
		users = append(users, fmt.Sprintf("user%d", i))
		table += users[i] + "\n"
	}
	server := dovecot.Start(t, dovecot.Options{Users: users})
	for _, user := range users {
		for n := range each {
			server.Deliver(user, "INBOX", fmt.Appendf(nil, "Subject: %d of %s\r\nMessage-ID: <%d.%s@x.test>\r\n\r\nx\r\n", n, user, n, user), time.Unix(1_700_000_000+int64(n), 0))
		}
	}
	// pod makes what a pod has: the mounts of the manifest.
	pod := func() *job {
		j := newJob(t, "")
		at := strings.NewReplacer("/etc/mailhaul/", j.dir+"/", "/data/", j.path("data")+"/")
		j.write(at.Replace(string(file)))
		j.env = append(j.env, "MAIL_SERVER="+server.IMAP, "MAIL_SECURITY=none")
		if err := os.WriteFile(j.path("accounts.csv"), []byte(table), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(j.path("passwords"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, user := range users {
			if err := os.WriteFile(j.path("passwords", user), []byte(dovecot.Password), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return j
	}
	one := pod()
	one.run(0, "run")

	many := pod()
	start := func(index int) *running {
		args := slices.Clone(pods.Spec.Template.Spec.Containers[0].Args)
		for i := range args {
			args[i] = strings.NewReplacer("$(JOB_COMPLETION_INDEX)", fmt.Sprint(index), "/etc/mailhaul/", many.dir+"/", "=:9090", "=127.0.0.1:0").Replace(args[i])
		}
		return many.start(args...)
	}
	var all []*running
	for i := range shards {
		all = append(all, start(i))
	}
	until(t, "a shard is under way", func() bool {
		_, err := os.Stat(many.path("data", "state", fmt.Sprintf("shard-0-of-%d", shards)))
		return err == nil
	})
	all[0].cmd.Process.Kill() // wherever it is, or after its end
	all[0].wait()
	all[0] = start(0)
	for i, r := range all {
		if o := r.wait(); o.code != 0 {
			t.Fatalf("shard %d: %s", i, o)
		}
	}

	files, lines := map[string]string{}, []string{}
	busy := 0
	for i := range shards {
		dir := many.path("data", "export", fmt.Sprintf("%d-of-%d", i, shards))
		if _, err := os.Stat(dir); err != nil {
			continue // no account falls to it
		}
		busy++
		own := mails(t, filepath.Join(dir, "eml"))
		for name, sum := range own {
			if files[name] != "" {
				t.Errorf("two shards wrote %s", name)
			}
			files[name] = sum
		}
		lines = append(lines, linesOf(t, filepath.Join(dir, "index.jsonl"))...)
	}
	if busy < 2 {
		t.Fatalf("%d shards had all accounts", busy)
	}
	if diff := cmp.Diff(mails(t, one.path("data", "export", "eml")), files); diff != "" {
		t.Errorf("the shards' files aren't those of one run (-one +shards):\n%s", diff)
	}
	slices.Sort(lines)
	want := linesOf(t, one.path("data", "export", "index.jsonl"))
	slices.Sort(want)
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("the shards' index isn't that of one run (-one +shards):\n%s", diff)
	}

	o := many.run(0, "report", "--merge", "data/reports", "-o", "all.json")
	needs(t, o.out, fmt.Sprintf("%d reports joined: complete", shards), fmt.Sprintf("accounts: %d complete", accounts), fmt.Sprintf("total: %d listed = ", accounts*each))
	sources := func(path string) map[string]int64 {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var r struct {
			Accounts []struct {
				Source string
				Sum    struct{ Listed int64 }
			}
		}
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		out := map[string]int64{}
		for _, a := range r.Accounts {
			out[a.Source] += a.Sum.Listed
		}
		return out
	}
	if got, want := sources(many.path("all.json")), sources(one.path("data", "reports", "last.json")); !maps.Equal(got, want) {
		t.Errorf("the joined report has %v, one run's %v", got, want)
	}
}

// linesOf returns the lines of a file, which must be there.
func linesOf(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}
