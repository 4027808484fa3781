package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/browser"
	"github.com/mailhaul/pipeline/test/dovecot"
)

// TestThousandsOfAccounts runs 3,000 accounts of one table against one server
// that has 200 of them. The others are wrong in assorted ways: each is one line
// and stops nobody (I6), and all are sessions of one process. A page shows them
// all while they run.
func TestThousandsOfAccounts(t *testing.T) {
	t.Parallel()
	const right, all = 200, 3000
	var users []string
	for i := range right {
		users = append(users, fmt.Sprintf("user%d", i))
	}
	server := dovecot.Start(t, dovecot.Options{Users: users, Extra: `
service imap-login {
  service_count = 0
  client_limit = 1000
}
service imap {
  process_limit = 400
}
`})
	for i, user := range users {
		for n := range 2 {
			server.Deliver(user, "INBOX", fmt.Appendf(nil, "Subject: %d of %s\r\n\r\nx\r\n", n, user), time.Unix(1_700_000_000+int64(i), 0))
		}
	}
	closed := refusing(t)

	// The table: every 15th row is right, the rest wrong in turn.
	var table strings.Builder
	table.WriteString("name,address,password,security,custodian\n")
	wrong := map[string]int{}
	for i := range all {
		name, address, password, security := fmt.Sprintf("user%d", i/15), server.IMAP, dovecot.Password, "none"
		if i%15 > 0 {
			name = fmt.Sprintf("stranger%d", i)
			kind := [...]string{"unknown user", "wrong password", "refused", "bad row", "taken name", "unknown host"}[i%15%6]
			if kind == "unknown host" && wrong[kind] >= 20 {
				kind = "unknown user" // each asks the resolver, whose patience isn't ours
			}
			wrong[kind]++
			switch kind {
			case "wrong password":
				password = "hunter2"
			case "refused":
				address = closed
			case "bad row":
				fmt.Fprintf(&table, "%s,%s\n", name, address)
				continue
			case "taken name":
				name = "user0"
			case "unknown host":
				address, security = "mail.invalid:993", "tls"
			}
		}
		fmt.Fprintf(&table, "%s,%s,%s,%s,\"Custodian %d\"\n", name, address, password, security, i)
	}
	j := newJob(t, `version: 1
name: mail
state: state
report: {json: report.json}
concurrency: {sources: 100}
sources:
  - name: ${row:name}
    foreach: {csv: accounts.csv}
    plugin: imap
    config:
      address: ${row:address}
      security: ${row:security}
      username: ${row:name}
      password: ${row:password}
      connections: 1
    vars: {custodian: "${row:custodian}"}
sinks:
  - name: archive
    plugin: eml
    config: {path: export/eml}
  - name: index
    plugin: json
    config: {path: export/index.jsonl}
`)
	if err := os.WriteFile(j.path("accounts.csv"), []byte(table.String()), 0o600); err != nil {
		t.Fatal(err)
	}

	// Lint and plan, at that size: under a second of work.
	for verb, code := range map[string]int{"lint": 2, "plan": 0} {
		r := j.start(verb)
		o := r.wait()
		used := r.cmd.ProcessState.UserTime() + r.cmd.ProcessState.SystemTime()
		t.Logf("%s: %v on the clock, %v of work", verb, o.took.Round(time.Millisecond), used)
		if o.code != code || used > 2*time.Second {
			t.Errorf("%s took %v: exit code %d, want %d: %.500s", verb, used, o.code, code, o.err)
		}
		bad := strings.Count(o.out, "left out: accounts.csv:") + strings.Count(o.err, "error: accounts.csv:")
		if want := wrong["bad row"] + wrong["taken name"]; bad != want {
			t.Errorf("%s tells of %d bad rows, want %d", verb, bad, want)
		}
	}

	b := browser.Start(t)
	running := j.start("run", "--ui", "127.0.0.1:0")
	address := running.page()
	wide := b.Open(address, browser.Options{Width: 1440, Height: 900})
	processes := map[int]bool{}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-running.ended:
				return
			case <-time.After(50 * time.Millisecond):
			}
			for id, name := range children(running.cmd.Process.Pid) {
				if name == "pipeline-source-imap" {
					processes[id] = true
				}
			}
		}
	}()
	narrow := b.Open(address, browser.Options{Width: 360, Height: 740, Dark: true})
	o := running.wait()
	<-watched
	pageOfThousands(t, j, address, wide, narrow)
	t.Logf("the run: %v", o.took.Round(time.Millisecond))
	if o.code != 4 {
		t.Errorf("exit code %d, want 4", o.code)
	}
	if len(processes) != 1 {
		t.Errorf("%d processes served the accounts, want 1", len(processes))
	}
	if n := len(mails(t, j.path("export/eml"))); n != 2*right {
		t.Errorf("%d messages were exported, want %d", n, 2*right)
	}
	if lines := index(t, j.path("export/index.jsonl")); len(lines) != 2*right {
		t.Errorf("the index has %d lines", len(lines))
	}
	needs(t, o.out, fmt.Sprintf("total: %[1]d listed = %[1]d written", 2*right))
	// Each wrong one is one line, and there is no other.
	told := map[string]int{}
	for _, line := range errorLines(o.err) {
		rest, ok := strings.CutPrefix(line, "error: source ")
		who, what, _ := strings.Cut(rest, ": ")
		if !ok || told[who] > 0 || len(line) > 300 {
			t.Errorf("a line too many, or too long: %s", line)
		}
		told[who]++
		switch {
		case strings.Contains(what, "Authentication failed"):
			told["wrong password"]++
		case strings.Contains(what, "refused"):
			told["refused"]++
		case strings.Contains(what, "the row has 2 values, the header has 5"):
			told["bad row"]++
		case strings.Contains(what, "is taken by"):
			told["taken name"]++
		case strings.Contains(what, "mail.invalid"):
			told["unknown host"]++
		default:
			t.Errorf("what is this: %s", line)
		}
	}
	wrong["wrong password"] += wrong["unknown user"] // a server doesn't tell them apart
	delete(wrong, "unknown user")
	for kind, n := range wrong {
		if told[kind] != n {
			t.Errorf("%s: %d lines, want %d", kind, told[kind], n)
		}
	}
	if strings.Contains(o.err+o.out, "hunter2") {
		t.Error("a password is told (I9)")
	}
	if t.Failed() {
		t.Logf("%.3000s", o.err)
	}
}
