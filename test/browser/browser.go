// Package browser drives headless Chromium for tests, over its DevTools
// protocol on two pipes: what a person sees of a page, and what its script
// costs. Nothing else is needed than the browser itself.
package browser

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Browser is a running Chromium with a profile of its own. It ends with the
// test that started it.
type Browser struct {
	tb  testing.TB
	cmd *exec.Cmd
	in  io.Writer

	mu      sync.Mutex
	last    int
	answers map[int]chan answer
	pages   map[string]*Page // by session
	gone    error            // why it can't be asked any more
}

// patience is how long the browser may take for an answer, and a page for what
// a test waits for: loaded machines are slow.
const patience = 90 * time.Second

type answer struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// Start starts Chromium. A missing one fails the test.
func Start(tb testing.TB) *Browser {
	tb.Helper()
	path := find()
	if path == "" {
		tb.Fatal("Chromium isn't there: apt-get install chromium (or .ci/install-deps)")
	}
	dir, err := os.MkdirTemp("/tmp", "br")
	if err != nil {
		tb.Fatal(err)
	}
	b := &Browser{tb: tb, answers: map[int]chan answer{}, pages: map[string]*Page{}}
	b.cmd = exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--mute-audio", "--user-data-dir="+dir, "--remote-debugging-pipe", "about:blank")
	b.cmd.Env = append(os.Environ(), "HOME="+dir)
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	b.cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	b.in = ourOut
	if err := b.cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", path, err)
	}
	theirIn.Close()
	theirOut.Close()
	var reading sync.WaitGroup
	reading.Go(func() { b.read(ourIn) })
	tb.Cleanup(func() {
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL) // its children too
		_ = b.cmd.Wait()
		ourOut.Close()
		ourIn.Close()
		reading.Wait()
		os.RemoveAll(dir)
	})
	return b
}

func find() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// read takes what the browser says: messages that end in a zero octet.
func (b *Browser) read(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		text, err := in.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.gone = errors.New("the browser has ended")
			for id, c := range b.answers {
				close(c)
				delete(b.answers, id)
			}
			return
		}
		var m struct {
			ID        int
			Method    string
			SessionID string
			Params    json.RawMessage
			answer
		}
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if c := b.answers[m.ID]; c != nil && m.Method == "" {
			delete(b.answers, m.ID)
			c <- m.answer
		} else if p := b.pages[m.SessionID]; p != nil {
			p.note(m.Method, m.Params)
		}
		b.mu.Unlock()
	}
}

// call asks the browser something and waits for the answer.
func (b *Browser) call(session, method string, params any, out any) error {
	b.mu.Lock()
	if b.gone != nil {
		defer b.mu.Unlock()
		return b.gone
	}
	b.last++
	id, c := b.last, make(chan answer, 1)
	b.answers[id] = c
	message := map[string]any{"id": id, "method": method, "params": params}
	if session != "" {
		message["sessionId"] = session
	}
	data, err := json.Marshal(message)
	if err == nil {
		_, err = b.in.Write(append(data, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case a, ok := <-c:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser has ended", method)
		case a.Error != nil:
			return fmt.Errorf("%s: %s", method, a.Error.Message)
		case out != nil:
			return json.Unmarshal(a.Result, out)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer in %v", method, patience)
	}
}

// Page is a tab. Its methods fail the test when the browser doesn't obey.
type Page struct {
	b       *Browser
	session string
	noted   []string // guarded by b.mu
	asked   []string // so, too
}

// Options say how a page is looked at.
type Options struct {
	Width, Height int  // default 1280 by 900
	Dark          bool // the person likes it dark
}

// Open opens a page at an address and waits until it is loaded.
func (b *Browser) Open(address string, o Options) *Page {
	b.tb.Helper()
	if o.Width == 0 {
		o.Width, o.Height = 1280, 900
	}
	var target struct{ TargetID string }
	var attached struct{ SessionID string }
	b.must(b.call("", "Target.createTarget", map[string]any{"url": "about:blank", "newWindow": true}, &target))
	b.must(b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached))
	p := &Page{b: b, session: attached.SessionID}
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	scheme := "light"
	if o.Dark {
		scheme = "dark"
	}
	for _, step := range []struct {
		method string
		params map[string]any
	}{
		{"Page.enable", nil}, {"Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}}, {"Runtime.enable", nil}, {"Log.enable", nil}, {"Network.enable", nil}, {"Performance.enable", map[string]any{"timeDomain": "threadTicks"}},
		{"Emulation.setDeviceMetricsOverride", map[string]any{"width": o.Width, "height": o.Height, "deviceScaleFactor": 1, "mobile": false}},
		{"Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}},
	} {
		p.Do(step.method, step.params, nil)
	}
	p.Do("Page.navigate", map[string]any{"url": address}, nil)
	p.Until("the page is loaded", `document.readyState === "complete" && location.href !== "about:blank"`)
	return p
}

func (b *Browser) must(err error) {
	b.tb.Helper()
	if err != nil {
		b.tb.Fatalf("the browser: %v", err)
	}
}

// note keeps what the page complains of and what it asks of the network. b.mu
// is held.
func (p *Page) note(method string, params json.RawMessage) {
	var e struct {
		Type             string
		Args             []struct{ Value, Description any }
		Entry            struct{ Level, Text, URL string }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
		Request struct{ URL string }
	}
	if json.Unmarshal(params, &e) != nil {
		return
	}
	switch method {
	case "Runtime.consoleAPICalled":
		p.noted = append(p.noted, fmt.Sprint(e.Type, " ", e.Args))
	case "Log.entryAdded":
		p.noted = append(p.noted, e.Entry.Level+" "+e.Entry.Text+" "+e.Entry.URL)
	case "Runtime.exceptionThrown":
		p.noted = append(p.noted, e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case "Network.requestWillBeSent":
		p.asked = append(p.asked, e.Request.URL)
	}
}

// Do calls a method of the protocol for this page; out may be nil.
func (p *Page) Do(method string, params map[string]any, out any) {
	p.b.tb.Helper()
	if params == nil {
		params = map[string]any{}
	}
	p.b.must(p.b.call(p.session, method, params, out))
}

// Eval evaluates an expression in the page into out, which may be nil.
func (p *Page) Eval(expression string, out any) {
	p.b.tb.Helper()
	if err := p.eval(expression, out); err != nil {
		p.b.tb.Fatalf("%s: %v", expression, err)
	}
}

func (p *Page) eval(expression string, out any) error {
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	if err := p.b.call(p.session, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &r); err != nil {
		return err
	}
	if r.ExceptionDetails != nil {
		return errors.New(r.ExceptionDetails.Exception.Description)
	}
	if out == nil || len(r.Result.Value) == 0 {
		return nil
	}
	return json.Unmarshal(r.Result.Value, out)
}

// Text returns what an expression gives, as text.
func (p *Page) Text(expression string) (s string) {
	p.b.tb.Helper()
	p.Eval("String("+expression+")", &s)
	return s
}

// Until waits until a condition holds in the page, which must come.
func (p *Page) Until(what, condition string) {
	p.b.tb.Helper()
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ok := false
		if last = p.eval("!!("+condition+")", &ok); last == nil && ok {
			return
		}
	}
	var text string
	_ = p.eval("document.body.innerText", &text)
	p.b.tb.Fatalf("this never came: %s (%s): %v\nthe page says:\n%.3000s\nit noted %q", what, condition, last, text, p.Noted())
}

// Press presses a key, as "Tab" or "Enter", or types a character.
func (p *Page) Press(keys ...string) {
	p.b.tb.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27}
	for _, key := range keys {
		down := map[string]any{"type": "keyDown", "key": key}
		switch code := codes[key]; {
		case code == 0:
			down["text"] = key
		case key == "Enter":
			down["text"] = "\r"
			fallthrough
		default:
			down["windowsVirtualKeyCode"], down["code"] = code, key
		}
		p.Do("Input.dispatchKeyEvent", down, nil)
		down["type"] = "keyUp"
		delete(down, "text")
		p.Do("Input.dispatchKeyEvent", down, nil)
	}
}

// Noted returns what the console and the page's errors said.
func (p *Page) Noted() []string {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	return append([]string(nil), p.noted...)
}

// Asked returns the addresses that the page asked for.
func (p *Page) Asked() []string {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// Wide returns what reaches beyond the right edge of the window; nothing
// should, but what scrolls by itself.
func (p *Page) Wide() string {
	p.b.tb.Helper()
	return p.Text(`(function () {
  for (const e of document.querySelectorAll("main *")) {
    if (e.closest(".scroll, svg, .cmd, .ticks, .plot")) continue;
    if (e.getBoundingClientRect().right > document.documentElement.clientWidth + 1) return e.tagName + "#" + e.id + "." + e.className + ": " + e.textContent.slice(0, 60);
  }
  return document.documentElement.scrollWidth > document.documentElement.clientWidth + 1 ? "the page" : "";
})()`)
}

// Metrics returns what the browser measures of the page, after it has thrown
// away what nobody holds: ScriptDuration and TaskDuration in seconds of
// processor, JSHeapUsedSize in octets, Nodes and others.
func (p *Page) Metrics() map[string]float64 {
	p.b.tb.Helper()
	var r struct {
		Metrics []struct {
			Name  string
			Value float64
		}
	}
	p.Do("HeapProfiler.collectGarbage", nil, nil)
	p.Do("Performance.getMetrics", nil, &r)
	out := map[string]float64{}
	for _, m := range r.Metrics {
		out[m.Name] = m.Value
	}
	return out
}

// tallest is the height of a picture of a long page.
const tallest = 1800.0

// Picture writes what is to be seen of the page, also below the window, into the
// folder that MAILHAUL_PICTURES names; without one it does nothing.
func (p *Page) Picture(name string) {
	p.b.tb.Helper()
	folder := os.Getenv("MAILHAUL_PICTURES")
	if folder == "" {
		return
	}
	var r struct{ Data string }
	var seen struct {
		CSSContentSize struct{ Width, Height float64 }
	}
	p.Do("Page.getLayoutMetrics", nil, &seen)
	clip := map[string]any{"x": 0, "y": 0, "width": seen.CSSContentSize.Width, "height": min(seen.CSSContentSize.Height, tallest), "scale": 1}
	p.Do("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true, "clip": clip}, &r)
	data, err := base64.StdEncoding.DecodeString(r.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, strings.ReplaceAll(name, "/", "-")+".png"), data, 0o600)
	}
	if err != nil {
		p.b.tb.Fatalf("picture %s: %v", name, err)
	}
}

// Close closes the tab.
func (p *Page) Close() {
	p.b.tb.Helper()
	p.Do("Page.close", nil, nil)
}
