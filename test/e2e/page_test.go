package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/browser"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

var watchLine = regexp.MustCompile(`(?m)^watch the run at (http://\S+)$`)

// page returns the address of the live page of a run, once it is printed.
func (r *running) page() string {
	r.t.Helper()
	var m []string
	until(r.t, "the run says where its page is", func() bool {
		m = watchLine.FindStringSubmatch(r.err.String())
		return m != nil
	})
	return m[1]
}

// reported is what the tests read of a report.
type reported struct {
	Total struct {
		Listed, Written, Pending, Standing int64
	}
	Accounts []struct {
		Source, State, Error, Hint string
		Mailboxes                  []struct{ Name string }
	}
}

func (j *job) report() (r reported) {
	j.t.Helper()
	data, err := os.ReadFile(j.path("report.json"))
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		j.t.Fatal(err)
	}
	return r
}

// clean fails the test for what a page complained of, for what it asked of
// others than the run, and for what reaches beyond its window.
func clean(t *testing.T, p *browser.Page, address string) {
	t.Helper()
	if noted := p.Noted(); len(noted) > 0 {
		t.Errorf("the page complains: %q", noted)
	}
	for _, asked := range p.Asked() {
		if !strings.HasPrefix(asked, address) && !strings.HasPrefix(asked, "data:") {
			t.Errorf("the page asks for %s", asked)
		}
	}
	if wide := p.Wide(); wide != "" {
		t.Errorf("this reaches beyond the window: %s", wide)
	}
}

// TestPageOfARun watches real runs in a real browser: one account, with names
// of mailboxes that are HTML; a process that is killed; the next one at the same
// address, seen to its end, with the numbers of its report.
func TestPageOfARun(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	const html = `<img src=x onerror=alert(1)><script>document["title"]='owned'</script>`
	const each = 60
	for _, mailbox := range []string{"INBOX", html, "手紙 & <b>Tides</b>"} {
		for n := range each {
			server.Deliver("alice", mailbox, fmt.Appendf(nil, "Subject: %d\r\n\r\n%s\r\n", n, strings.Repeat("a line of this letter\r\n", 200)), time.Unix(1_700_000_000+int64(n), 0))
		}
	}
	wire := wireproxy.Start(t, server.IMAP)
	wire.Rate(6_000) // octets a second and connection: long enough to look at
	j := newJob(t, file{address: wire.Addr}.String()+"report: {json: report.json}\n")
	b := browser.Start(t)

	first := j.start("run", "--ui", "127.0.0.1:0")
	address := first.page()
	p := b.Open(address, browser.Options{Width: 1440, Height: 900})
	p.Until("messages are written while the run goes on", `Number(document.getElementById("t-written").textContent) > 0`)
	if got := p.Text(`document.getElementById("badge").textContent`); got != "running" {
		t.Errorf("the badge says %q", got)
	}
	p.Until("the one account is open, and its mailboxes are text", fmt.Sprintf(`Array.from(document.querySelectorAll("tr.box th")).some((c) => c.textContent === %q)`, html))
	if got := p.Text(`document.querySelector("tr.account button").getAttribute("aria-expanded") + document.querySelectorAll("main img, main script").length + document.title.includes("owned")`); got != "true0false" {
		t.Errorf("the account isn't open, or the page took text for HTML: %s", got)
	}
	clean(t, p, address)
	p.Picture("one-running")

	// Nobody says goodbye: the page says since when it knows nothing.
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.wait()
	p.Until("the page says that the process has gone", `document.getElementById("banner").textContent.includes("The run doesn't answer")`)
	if got := p.Text(`document.getElementById("banner").getAttribute("aria-live") + " " + document.getElementById("badge").textContent + " " + (Number(document.getElementById("t-written").textContent) > 0)`); got != "polite no answer true" {
		t.Errorf("after the process has gone: %s", got)
	}
	p.Picture("one-gone")

	// The next run is at the same address: the page finds it by itself.
	second := j.start("run", "--ui", strings.TrimSuffix(strings.TrimPrefix(address, "http://"), "/"))
	second.page()
	p.Until("the page shows the next run", `document.getElementById("about").textContent.startsWith("Run 2 ") && document.getElementById("badge").textContent === "running"`)
	if got := p.Text(`document.getElementById("banner").textContent`); got != "" {
		t.Errorf("the banner still says %q", got)
	}
	wire.Rate(0)
	wire.CutAll() // the account is tried again, at full speed
	o := second.wait()
	if o.code != 0 {
		t.Fatalf("%s", o)
	}
	p.Until("the end is shown", `document.getElementById("badge").textContent === "complete"`)
	total := j.report().Total
	for id, want := range map[string]int64{"t-listed": total.Listed, "t-written": total.Written, "t-pending": total.Pending, "t-dead": total.Standing} {
		if got := p.Text(fmt.Sprintf(`document.getElementById(%q).textContent.replace(",", "")`, id)); got != fmt.Sprint(want) {
			t.Errorf("%s: the page says %s, the report %d", id, got, want)
		}
	}
	if got := p.Text(`document.getElementById("banner").textContent`); got != "The run has ended: complete." {
		t.Errorf("the banner says %q", got)
	}
	if total.Listed != 3*each {
		t.Errorf("%d messages were listed, want %d", total.Listed, 3*each)
	}
	p.Picture("one-ended")
}

// pageOfThousands looks at pages that were open when a run of thousands of
// accounts ended: the report's numbers, what failed by name with what to do,
// found without a mouse, in a window of a telephone as in a wide one.
func pageOfThousands(t *testing.T, j *job, address string, wide, narrow *browser.Page) {
	t.Helper()
	report := j.report()
	states := map[string]int{}
	failed := -1
	for i, a := range report.Accounts {
		states[a.State]++
		if failed < 0 && a.Hint != "" {
			failed = i
		}
	}
	for name, p := range map[string]*browser.Page{"wide": wide, "narrow": narrow} {
		p.Until("the end is shown", `document.getElementById("badge").textContent === "incomplete"`)
		for id, want := range map[string]string{
			"t-listed": fmt.Sprint(report.Total.Listed), "t-written": fmt.Sprint(report.Total.Written), "t-pending": fmt.Sprint(report.Total.Pending),
			"banner": "The run has ended: incomplete. Its exit code is 4.",
		} {
			if got := p.Text(fmt.Sprintf(`document.getElementById(%q).textContent`, id)); got != want {
				t.Errorf("%s: %s says %q, want %q", name, id, got, want)
			}
		}
		shown := p.Text(`Array.from(document.getElementById("state").options).map((o) => o.textContent.replace(",", "")).join("; ")`)
		for state, n := range states {
			if want := fmt.Sprintf("%s (%d)", state, n); !strings.Contains(shown, want) {
				t.Errorf("%s: %q isn't among the states: %s", name, want, shown)
			}
		}
		if rows := p.Text(`document.querySelectorAll("tr.account").length`); rows != "100" {
			t.Errorf("%s: %s rows are made of %d accounts, want 100 until more are asked for", name, rows, len(report.Accounts))
		}
		if first := p.Text(`document.querySelector("tr.account td").className`); first == "s-complete" {
			t.Errorf("%s: what failed isn't first", name)
		}
		clean(t, p, address)
		m := p.Metrics()
		t.Logf("%s: %.2f s of script, %.2f s of the page's thread in all, %.1f MB, %.0f nodes", name, m["ScriptDuration"], m["TaskDuration"], m["JSHeapUsedSize"]/1e6, m["Nodes"])
		if m["JSHeapUsedSize"] > 100e6 || m["Nodes"] > 30_000 {
			t.Errorf("%s: %d accounts cost %.1f MB and %.0f nodes", name, len(report.Accounts), m["JSHeapUsedSize"]/1e6, m["Nodes"])
		}
		p.Picture("thousands-" + name)
	}
	if ink := narrow.Text(`getComputedStyle(document.body).color`); ink != "rgb(231, 232, 234)" {
		t.Errorf("in the dark the ink is %s", ink)
	}
	if failed < 0 {
		t.Fatal("no account failed with a hint")
	}
	// Without a mouse: Tab to the search, type a name, Tab to the row, open it.
	a := report.Accounts[failed]
	wide.Eval(`document.activeElement.blur()`, nil)
	for range 10 {
		if wide.Press("Tab"); wide.Text(`document.activeElement.id`) == "find" {
			break
		}
	}
	wide.Press(strings.Split(a.Source, "")...)
	wide.Until("the account is found", fmt.Sprintf(`Array.from(document.querySelectorAll("tr.account button")).every((b) => b.textContent.includes(%q))`, a.Source))
	seen := wide.Text(`document.querySelector("tbody").textContent`)
	for _, want := range []string{a.Source, a.Error, a.Hint} {
		if !strings.Contains(seen, want) {
			t.Errorf("%q isn't in the row: %s", want, seen)
		}
	}
	for range 10 {
		if wide.Press("Tab"); wide.Text(`document.activeElement.textContent`) == a.Source {
			break
		}
	}
	wide.Press("Enter")
	wide.Until("the row is open", `document.activeElement.getAttribute("aria-expanded") === "true"`)
	wide.Picture("thousands-found")
}
