package report

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sample is a report of n accounts with all that a report can tell.
func sample(n int) *Report {
	began := time.Date(2026, 11, 21, 1, 30, 0, 0, time.UTC)
	r := &Report{
		SchemaVersion: 1, Pipeline: "acme", Run: 12, File: "acme.yaml", Version: "v1.2.3", Began: began, Ended: began.Add(47*time.Minute + 12*time.Second),
		Exit: 4, Outcome: "incomplete", Total: NewSum(), Accounts: []Account{}, Failures: []Failure{}, Stages: []string{"recent", "once"},
		Sinks: []Sink{{"archive", "eml", "/srv/export/eml", ""}, {"outlook", "msg", "/srv/export/msg", `mailbox startsWith "Projects"`}},
	}
	r.Timeline.Seconds = 15
	for i := range 189 {
		r.Timeline.Octets = append(r.Timeline.Octets, int64(40e6+30e6*float64(i%23)/23))
		r.Timeline.Messages = append(r.Timeline.Messages, int64(300+i%40*7))
	}
	names := []string{"INBOX", "Archive/2024", "Sent", "Projects/Skerry Light & <Tides>", "手紙/灯台", strings.Repeat("A very long level/", 12)}
	for i := range n {
		a := Account{Source: fmt.Sprintf("user%04d", i), Plugin: "imap", State: "complete", Sum: NewSum()}
		for j, name := range names {
			listed := int64(100 + (i*37+j*911)%4000)
			m := Mailbox{Name: name, UIDValidity: 1, State: "complete", Sum: NewSum()}
			m.Sum.Listed, m.Sum.Written, m.Sum.DoneBefore = listed, listed-60, 40
			m.Sum.Dropped["recent"], m.Sum.Duplicates = 15, 5
			m.Sum.Octets = listed * 41_000
			server := listed
			m.Sum.Server = &server
			switch {
			case i%50 == 7 && j == 2:
				m.State, m.Problem = "incomplete", "EXAMINE Sent: the server answered NO [NOPERM] access denied"
				m.Sum.Written, m.Sum.Pending = m.Sum.Written-30, 30
				a.State = "incomplete"
			case i%3 == 0 && j == 1:
				server += 12
				m.BlindSpots = []string{"the server shows at most 1,000 messages of a mailbox to IMAP"}
			case j == 3 && i%10 == 1:
				m.Sum.Written, m.Sum.DeadLetters, m.Sum.Standing = m.Sum.Written-2, 2, 2
			}
			a.Sum.Add(&m.Sum)
			a.Mailboxes = append(a.Mailboxes, m)
		}
		a.Mailboxes = append(a.Mailboxes, Mailbox{Name: "Trash", State: "excluded", Sum: NewSum()})
		switch {
		case i%97 == 5:
			a.State, a.Error, a.Hint, a.Mailboxes, a.Sum = "never listed", "log in to imap.example.com:993 as "+a.Source+": the server answered NO [AUTHENTICATIONFAILED]", "check the password", []Mailbox{}, NewSum()
		case i%131 == 11:
			a.State, a.Until = "parked", "2026-11-21T16:40:00Z"
			a.Error = "the server answered NO [OVERQUOTA] bandwidth limit"
		}
		r.Total.Add(&a.Sum)
		r.Accounts = append(r.Accounts, a)
	}
	if n > 20 {
		r.Failures = []Failure{
			{Kind: "accounts", Reason: "auth", Count: int64(n/97 + 1), Text: r.Accounts[5].Error, Hint: "check the password", Command: "pipeline run --config acme.yaml",
				Examples: []Example{{Source: "user0005", Text: r.Accounts[5].Error}}},
			{Kind: "dead letters", Reason: "server_placeholder", Count: r.Total.Standing, Text: "the server gave a placeholder instead of the message", Command: "pipeline failed retry --reason server_placeholder --config acme.yaml",
				Examples: []Example{{Source: "user0001", Mailbox: "INBOX", ID: "user0001:/INBOX;UIDVALIDITY=1/;UID=77", Subject: "Rechnung <script>alert(1)</script>", From: "a@x.test", Date: "Sat, 31 Oct 2026 10:00:00 +0100", Text: "the server gave a placeholder"}}},
		}
	}
	return r
}

// browser finds headless Chromium.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("Chromium isn't there: apt-get install chromium (or .ci/install-deps)")
	return ""
}

// look opens a page in the browser and returns the DOM as it then is, with
// what the page itself noted in its title.
func look(t *testing.T, page []byte, args ...string) (dom string, log string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "report.html")
	if err := os.WriteFile(path, page, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--user-data-dir=" + filepath.Join(dir, "profile"),
		"--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", "--dump-dom"}, args...)
	cmd := exec.CommandContext(ctx, browser(t), append(args, "file://"+path)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, errs.String())
	}
	return out.String(), errs.String()
}

// probe is added to the page: it says in the document what a person would
// see, since --dump-dom is all that comes back.
const probe = `<script>
addEventListener("error", function (e) { document.documentElement.setAttribute("data-error", e.message); });
addEventListener("securitypolicyviolation", function (e) { document.documentElement.setAttribute("data-blocked", e.blockedURI || e.violatedDirective); });
addEventListener("load", function () {
  var d = document.documentElement, box = document.querySelector("main").getBoundingClientRect(), wide = "";
  document.querySelectorAll("main *").forEach(function (e) {
    if (!e.closest(".scroll") && !e.closest("svg") && !e.closest(".cmd") && !e.closest(".ticks") && !e.closest(".plot") && e.getBoundingClientRect().right > innerWidth + 1) wide = wide || e.tagName + "." + e.className + ": " + e.textContent.slice(0, 40);
  });
  d.setAttribute("data-wide", wide || (d.scrollWidth > innerWidth + 1 ? "the page" : ""));
  d.setAttribute("data-ready", Math.round(performance.now()));
  d.setAttribute("data-accounts", document.querySelectorAll("tr.account").length);
  d.setAttribute("data-network", performance.getEntriesByType("resource").length);
  d.setAttribute("data-ink", getComputedStyle(document.body).color);
});
</script>`

// TestPage opens the page as a person does: wide and narrow, light and dark,
// with one account and with thousands. Nothing is fetched, nothing overflows,
// nothing is an error, and it is there at once.
func TestPage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		accounts int
		args     []string
		ink      string
		rows     int
	}{
		{"nothing", 0, []string{"--window-size=1280,900"}, "rgb(29, 33, 40)", 0},
		{"one, wide", 1, []string{"--window-size=1280,900"}, "rgb(29, 33, 40)", 1},
		{"one, narrow", 1, []string{"--window-size=500,900"}, "rgb(29, 33, 40)", 1},
		{"3,000, wide, dark", 3000, []string{"--window-size=1280,900", "--blink-settings=preferredColorScheme=0"}, "rgb(231, 232, 234)", 60},
		{"3,000, narrow", 3000, []string{"--window-size=500,900"}, "rgb(29, 33, 40)", 60},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := HTML(&b, sample(tc.accounts)); err != nil {
				t.Fatal(err)
			}
			page := bytes.Replace(b.Bytes(), []byte("<head>"), []byte("<head>"+probe), 1)
			dom, log := look(t, page, tc.args...)
			get := func(name string) string {
				_, rest, ok := strings.Cut(dom[:strings.Index(dom, ">")+strings.Index(dom[strings.Index(dom, ">")+1:], ">")+1], "data-"+name+`="`)
				if !ok {
					return ""
				}
				value, _, _ := strings.Cut(rest, `"`)
				return value
			}
			if get("ready") == "" {
				t.Fatalf("the page never loaded:\n%.2000s\n%s", dom, log)
			}
			t.Logf("%d octets, loaded after %s ms, %s accounts shown", b.Len(), get("ready"), get("accounts"))
			for name, want := range map[string]string{"error": "", "blocked": "", "wide": "", "network": "0", "ink": tc.ink} {
				if got := get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if shown, _ := strconv.Atoi(get("accounts")); shown < min(tc.rows, tc.accounts) || tc.accounts > 1000 && shown > 500 {
				t.Errorf("%d accounts are shown of %d", shown, tc.accounts)
			}
			if strings.Contains(log, "CONSOLE") {
				t.Errorf("the console isn't empty:\n%s", log)
			}
		})
	}
}

// TestPageIsSafe puts what strangers write where it could do harm.
func TestPageIsSafe(t *testing.T) {
	t.Parallel()
	r := sample(30)
	r.Accounts[3].Mailboxes[0].Name = `</script><script>document.title="owned"</script>`
	r.Accounts[3].Error = `"><img src=x onerror=alert(1)>`
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"</script><script>document", "<img src=x", "<script>alert(1)", "http://", "https://", "url(", "@import"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("the page holds %s", bad)
		}
	}
	_, data, _ := strings.Cut(b.String(), `id="data">`)
	data, _, _ = strings.Cut(data, "</script>")
	var rows []row
	if err := json.Unmarshal([]byte(data), &rows); err != nil || len(rows) != 30 || rows[3].Boxes[0].([]any)[0] != r.Accounts[3].Mailboxes[0].Name {
		t.Errorf("the data don't come back: %v", err)
	}
}

// TestOneOfAKind: one account isn't called "1 accounts".
func TestOneOfAKind(t *testing.T) {
	t.Parallel()
	r := sample(1)
	r.Accounts[0].Mailboxes = r.Accounts[0].Mailboxes[:1]
	r.Failures = []Failure{
		{Kind: "accounts", Reason: "auth", Count: 1}, {Kind: "mailboxes", Reason: "gone", Count: 1},
		{Kind: "dead letters", Reason: "message", Count: 1}, {Kind: "messages", Reason: "message", Count: 2},
	}
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mailbox of 1 account<", "1</span> account: auth", "1</span> mailbox: gone", "1</span> dead letter: message", "2</span> messages: message"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
