package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// fence is a block of a page.
type fence struct{ kind, text string }

func fences(t *testing.T, page string) []fence {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []fence
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		out = append(out, fence{m[1], m[2]})
	}
	return out
}

// shell runs commands one after the other as a user's shell does: folder and
// variables stay.
type shell struct {
	t   *testing.T
	dir string // of what stays
	env []string
}

func (s *shell) run(command string) string {
	s.t.Helper()
	script := `[ -f "$STAYS/env" ] && . "$STAYS/env"; [ -f "$STAYS/pwd" ] && cd "$(cat "$STAYS/pwd")"
` + command + `
code=$?; export -p > "$STAYS/env"; pwd > "$STAYS/pwd"; exit $code`
	cmd := exec.CommandContext(s.t.Context(), "sh", "-c", script)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.CombinedOutput()
	s.t.Logf("$ %s\n%s", command, out)
	if err != nil {
		s.t.Errorf("$ %s\n%v", command, err)
	}
	return string(out)
}

// shown returns the lines that a text lacks. An … on the page stands for any
// text.
func shown(text, want string) (lacks []string) {
	for line := range strings.Lines(want) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		pattern := "(?m)^ *" + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*")
		if !regexp.MustCompile(pattern).MatchString(text) {
			lacks = append(lacks, line)
		}
	}
	return lacks
}

// TestStartPage does what docs/start.md tells a newcomer to do, in its order:
// installs, writes the files, runs each command, and finds what the page shows.
func TestStartPage(t *testing.T) {
	t.Parallel()
	const user = "alice@example.com"
	server := dovecot.Start(t, dovecot.Options{Users: []string{user}})
	for i := range 15 {
		box := "INBOX"
		if i >= 12 {
			box = "Projects"
		}
		server.Deliver(user, box, fmt.Appendf(nil, "Subject: %d\r\n\r\nx\r\n", i), time.Unix(1_700_000_000, 0))
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := plugins() // by the page's own command
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	s := &shell{t: t, dir: home, env: []string{"HOME=" + home, "STAYS=" + home, "PATH=" + bin + ":/usr/bin:/bin"}}
	s.run("cd " + root) // a clone of the repository
	here := strings.NewReplacer("address: imap.example.com\n", "address: "+server.IMAP+"\n      security: none\n",
		"MAIL_PASSWORD=hunter2", "MAIL_PASSWORD="+dovecot.Password, "mkdir mail &&", "mkdir $HOME/mail && cd $HOME &&")
	kinds, installed := map[string]int{}, false
	for _, f := range fences(t, "../../docs/start.md") {
		kinds[f.kind]++
		text := here.Replace(f.text)
		switch f.kind {
		case "yaml":
			if err := os.WriteFile(filepath.Join(home, "mail", "pipeline.yaml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		case "console":
			for _, part := range strings.Split("\n"+text, "\n$ ")[1:] {
				command, want, _ := strings.Cut(part, "\n")
				if command == install {
					installed = true
					continue
				}
				if lacks := shown(s.run(command), want); len(lacks) > 0 {
					t.Errorf("$ %s\ndoesn't show what the page says: %q", command, lacks)
				}
			}
		case "crontab":
			// What cron does: variables, then sh -c with what follows the five fields.
			password := filepath.Join(home, "password")
			if err := os.WriteFile(password, []byte(dovecot.Password+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			fields := regexp.MustCompile(`(?m)^0 3 \* \* \*  (.*)$`).FindStringSubmatch(text)
			if fields == nil {
				t.Fatalf("no entry in %s", text)
			}
			if out := s.run("(MAIL_PASSWORD_FILE=" + password + "; unset MAIL_PASSWORD; " + fields[1] + ")"); out != "" {
				t.Errorf("cron would mail: %s", out)
			}
		case "ini":
			if start := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(text); start != nil {
				s.run(start[1])
			}
		}
	}
	if !installed {
		t.Errorf("the page doesn't say %q", install)
	}
	if kinds["console"] < 6 || kinds["yaml"] != 2 || kinds["crontab"] != 1 || kinds["ini"] != 2 {
		t.Errorf("the page has %v", kinds)
	}
}
