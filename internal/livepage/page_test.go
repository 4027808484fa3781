package livepage

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/test/browser"
)

// busy has thousands of accounts change as fast as a run could ever change
// them: opened, tried again, failed in assorted ways, done.
func busy(b *Board, from, to int) {
	for i := from; i < to; i++ {
		name := fmt.Sprintf("user%04d", i)
		b.Event(engine.Event{Kind: engine.AccountOpened, Source: name, Text: "imap://" + name + "@imap.example.com"})
		switch i % 10 {
		case 3:
			b.Event(engine.Event{Kind: engine.AccountFailed, Source: name, Err: fault.New(fault.Auth, "log in to imap.example.com:993 as %s: the server answered NO [AUTHENTICATIONFAILED] <b>no</b>", name).WithHint("check the password")})
		case 5:
			b.Event(engine.Event{Kind: engine.AccountParked, Source: name, Wait: time.Hour, Err: fault.New(fault.Throttled, "%s", strings.Repeat("averylongwordwithoutanyspace", 12))})
		case 6:
			b.Event(engine.Event{Kind: engine.AccountRetried, Source: name, Wait: 30 * time.Second, Err: fault.New(fault.Unavailable, "the connection was reset")})
		case 7:
			b.Event(engine.Event{Kind: engine.DeadLetter, Source: name, Message: "imap://" + name + "@imap.example.com/INBOX;UIDVALIDITY=1/;UID=5", Reason: "server_placeholder", Text: "the server gave a placeholder"})
		case 8:
		default:
			b.Event(engine.Event{Kind: engine.AccountDone, Source: name})
		}
	}
}

// outcome is a result of those accounts, with all that a report can tell.
func outcome(n int) *engine.Result {
	r := &engine.Result{}
	for i := range n {
		a := engine.Account{Source: fmt.Sprintf("user%04d", i), Began: true}
		for _, name := range []string{"INBOX", "Sent", `<img src=x onerror=alert(1)>`} {
			a.Mailboxes = append(a.Mailboxes, engine.Sum{
				Mailbox: name, Server: 1200, Listed: 1200, Written: 1000, DoneBefore: 100, Dropped: map[string]int64{"recent": 60}, Duplicates: 20,
				Unrouted: 10, DeadLetters: 5, Standing: 5, Vanished: 5, Octets: 41_000_000, State: ledger.Complete, Complete: true,
			})
		}
		if i%10 == 3 {
			a.Err = fault.New(fault.Auth, "log in as %s: no", a.Source).WithHint("check the password")
		}
		r.Accounts = append(r.Accounts, a)
	}
	return r
}

// growing is a timeline of an hour at work.
func growing() report.Timeline {
	t := report.Timeline{Seconds: 15}
	for i := range 200 {
		t.Octets = append(t.Octets, int64(40e6+30e6*float64(i%23)/23))
		t.Messages = append(t.Messages, int64(300+i%40*7))
	}
	return t
}

// TestPageOfThousands opens pages of every kind of window on 3,000 accounts that
// change as fast as they can: nothing complains, nothing overflows, what failed
// is first, what is shown is bounded, and the script keeps up.
func TestPageOfThousands(t *testing.T) {
	t.Parallel()
	const n = 3000
	b := newBoard(t, n)
	b.run.Timeline = growing
	_, d := serve(t, b, "127.0.0.1:0")
	chromium := browser.Start(t)
	pages := map[string]*browser.Page{}
	for name, o := range map[string]browser.Options{
		"360, light": {Width: 360, Height: 740}, "360, dark": {Width: 360, Height: 740, Dark: true},
		"1440, light": {Width: 1440, Height: 900}, "1440, dark": {Width: 1440, Height: 900, Dark: true},
	} {
		pages[name] = chromium.Open(d.URL(), o)
		pages[name].Until("all accounts are there", `document.querySelectorAll("tr.account").length === 100`)
	}
	measured := pages["1440, light"]
	before := measured.Metrics()
	const frames = 10
	for i := range frames {
		busy(b, i*n/frames, (i+1)*n/frames)
		b.tick() // rather than the clock's: what a page has to do, and not how long a machine takes
		last := fmt.Sprintf("user%04d", (i+1)*n/frames-7)
		measured.Until("the page keeps up", fmt.Sprintf(`document.getElementById("state").textContent.includes("failed (%d)") || document.body.textContent.includes(%q)`, (i+1)*n/frames/10, last))
	}
	after := measured.Metrics()
	script := after["ScriptDuration"] - before["ScriptDuration"]
	t.Logf("%d frames of %d changed accounts: %.0f ms of script, %.0f ms of layout and style; %.1f MB, %.0f nodes", frames, n/frames, 1000*script,
		1000*(after["LayoutDuration"]+after["RecalcStyleDuration"]-before["LayoutDuration"]-before["RecalcStyleDuration"]), after["JSHeapUsedSize"]/1e6, after["Nodes"])
	if after["JSHeapUsedSize"] > 60e6 {
		t.Errorf("the script holds %.1f MB", after["JSHeapUsedSize"]/1e6)
	}
	for name, p := range pages {
		p.Until("what failed is told", `document.querySelectorAll(".failure").length === 3`)
		if got := p.Text(`Array.from(document.querySelectorAll(".failure h3")).map((h) => h.textContent).join("; ")`); got != "300 accounts: auth; 300 accounts: parked; 300 dead letters: server_placeholder" {
			t.Errorf("%s: failures: %s", name, got)
		}
		if got := p.Text(`document.querySelector("tr.account").textContent + document.querySelector("tr.why").textContent`); !strings.Contains(got, "user0003") || !strings.Contains(got, "<b>no</b>") || !strings.Contains(got, "check the password") {
			t.Errorf("%s: the first row is %q", name, got)
		}
		look(t, name, p, d.URL())
		p.Picture("busy " + name)
	}
	measured.Eval(`document.getElementById("show").click()`, nil)
	measured.Until("more are shown", `document.querySelectorAll("tr.account").length === 200`)

	b.End(outcome(n), engine.ExitIncomplete)
	for name, p := range pages {
		p.Until("the end", `document.getElementById("badge").textContent === "incomplete"`)
		if got := p.Text(`document.getElementById("t-listed").textContent + " " + document.getElementById("t-written").textContent`); got != "10,800,000 9,000,000" {
			t.Errorf("%s: %s", name, got)
		}
		look(t, name, p, d.URL())
		p.Picture("ended " + name)
	}
}

// look fails the test where a page isn't sound.
func look(t *testing.T, name string, p *browser.Page, address string) {
	t.Helper()
	if noted := p.Noted(); len(noted) > 0 {
		t.Errorf("%s: the page complains: %q", name, noted)
	}
	for _, asked := range p.Asked() {
		if !strings.HasPrefix(asked, address) && !strings.HasPrefix(asked, "data:") {
			t.Errorf("%s: the page asks for %s", name, asked)
		}
	}
	if wide := p.Wide(); wide != "" {
		t.Errorf("%s: this reaches beyond the window: %s", name, wide)
	}
	ink := map[bool]string{true: "rgb(231, 232, 234)", false: "rgb(29, 33, 40)"}[strings.Contains(name, "dark")]
	if got := p.Text(`getComputedStyle(document.body).color`); got != ink {
		t.Errorf("%s: the ink is %s, want %s", name, got, ink)
	}
	// Who hears the page: one place that speaks up, names for what can be
	// used, heads for all rows and columns.
	for what, expression := range map[string]string{
		"live regions":               `document.querySelectorAll("[aria-live]").length - 1`,
		"controls without a name":    `Array.from(document.querySelectorAll("input, select, button, svg, table")).filter((e) => !e.closest("[hidden]") && !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby") && !e.textContent.trim()).length`,
		"heads without a scope":      `document.querySelectorAll("th:not([scope])").length`,
		"rows without a head":        `Array.from(document.querySelectorAll("tr.account, tr.box")).filter((r) => !r.querySelector("th")).length`,
		"elements from what is text": `document.querySelectorAll("main img, main td b, main th b").length`,
	} {
		if got := p.Text(expression); got != "0" {
			t.Errorf("%s: %s: %s", name, what, got)
		}
	}
}

// TestPageAfterSleep: a page whose machine slept hears nothing and isn't told;
// it comes back for what it missed, and keeps what a person has typed.
func TestPageAfterSleep(t *testing.T) {
	t.Parallel()
	b := newBoard(t, 40)
	_, d := serve(t, b, "127.0.0.1:0")
	p := browser.Start(t).Open(d.URL(), browser.Options{})
	p.Until("all accounts are there", `document.querySelectorAll("tr.account").length === 40`)
	p.Eval(`(function () {
  const find = document.getElementById("find");
  find.value = "user001";
  find.dispatchEvent(new Event("input"));
})()`, nil)
	p.Until("the search holds", `document.querySelectorAll("tr.account").length === 10`)
	p.Eval(`(function () {
  const now = Date.now;
  let slept = 0;
  Date.now = () => now() + slept;
  window.sleep = () => { slept += 3600000; };
})()`, nil)
	resumed := func() bool {
		for _, asked := range p.Asked() {
			if strings.Contains(asked, "id="+b.id) && !strings.Contains(asked, "since=0&") {
				return true
			}
		}
		return false
	}
	// A frame that comes just after a sleep, before the page has looked at its
	// clock, says that nothing is wrong: then it sleeps again.
	for end := time.Now().Add(long); !resumed(); time.Sleep(10 * time.Millisecond) {
		p.Eval(`sleep()`, nil)
		if time.Now().After(end) {
			t.Fatalf("the page never came back; it asked for %q", p.Asked())
		}
	}
	b.Event(engine.Event{Kind: engine.AccountFailed, Source: "user0012", Err: fault.New(fault.Auth, "no")})
	p.Until("what happened since", `document.querySelector("tr.account").textContent.includes("user0012") && document.querySelectorAll("tr.account").length === 10`)
	if got := p.Text(`document.getElementById("find").value + document.getElementById("banner").textContent`); got != "user001" {
		t.Errorf("after the sleep: %q", got)
	}
	if noted := p.Noted(); len(noted) > 0 {
		t.Errorf("the page complains: %q", noted)
	}
}

// TestPageWithToken: the URL of the run opens the page for good; without it
// there is nothing to see.
func TestPageWithToken(t *testing.T) {
	t.Parallel()
	_, d := serve(t, newBoard(t, 2), "0.0.0.0:0")
	chromium := browser.Start(t)
	address, _, _ := strings.Cut(d.URL(), "?")
	p := chromium.Open(address, browser.Options{})
	if got := p.Text(`document.body.innerText`); !strings.Contains(got, "asks for a token") || strings.Contains(got, "acme") {
		t.Errorf("without the token: %q", got)
	}
	p = chromium.Open(d.URL(), browser.Options{})
	p.Until("the page is there", `document.querySelectorAll("tr.account").length === 2`)
	if got := p.Text(`location.href + document.cookie`); got != address {
		t.Errorf("the token is left in the address, or the script can read it: %s", got)
	}
	p.Do("Page.reload", nil, nil)
	p.Until("it is there again", `document.querySelectorAll("tr.account").length === 2`)
}
