package livepage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// patience of a test with a loaded machine.
const long = 90 * time.Second

// newBoard is the board of a run of n accounts that never does anything by
// itself.
func newBoard(t *testing.T, n int) *Board {
	t.Helper()
	r := Run{Pipeline: "acme", Number: 7, File: "acme.yaml", Version: "v1", Began: time.Now(), Stats: &engine.Stats{}, Timeline: func() report.Timeline { return report.Timeline{} }}
	for i := range n {
		r.Sources = append(r.Sources, fmt.Sprintf("user%04d", i))
	}
	b := NewBoard(r)
	t.Cleanup(b.Close)
	return b
}

// serve shows a board at a free port of this machine, or of all addresses.
func serve(t *testing.T, b *Board, address string) (*Server, *Door) {
	t.Helper()
	d, err := Open(t.Context(), address, true)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(d, b, slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	return s, d
}

func TestOpen(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	for _, tc := range []struct {
		name, address string
		remote        bool
		words, hint   string
	}{
		{"taken", taken.Addr().String(), false, "the port is taken", "port 0"},
		{"no port", "127.0.0.1", false, "this is no address", "127.0.0.1:8080"},
		{"a port alone", ":0", false, "other machines could open the page", "--ui-remote"},
		{"all addresses", "0.0.0.0:8080", false, "other machines could open the page", "ssh -L 8080:127.0.0.1:8080"},
		{"another machine's", "203.0.113.1:0", true, "203.0.113.1:0", "an address of this machine"},
		{"a port that is none", "127.0.0.1:99999", false, "invalid port", "127.0.0.1:8080"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d, err := Open(t.Context(), tc.address, tc.remote)
			if err == nil {
				d.Close()
				t.Fatalf("%s is opened", d.URL())
			}
			if f := fault.As(err); f == nil || f.Class != fault.Config || !strings.Contains(err.Error(), tc.words) || !strings.Contains(f.Hint, tc.hint) {
				t.Errorf("got %v, hint %q", err, f.Hint)
			}
		})
	}
}

// TestGuard: who may see the page, and who not.
func TestGuard(t *testing.T) {
	t.Parallel()
	_, local := serve(t, newBoard(t, 1), "127.0.0.1:0")
	_, remote := serve(t, newBoard(t, 1), "0.0.0.0:0")
	if local.token != "" || strings.Contains(local.URL(), "token") {
		t.Error("this machine needs no token")
	}
	if len(remote.token) < 26 || !strings.HasSuffix(remote.URL(), "/?token="+remote.token) || strings.Contains(remote.URL(), "0.0.0.0") {
		t.Errorf("the URL for others is %s", remote.URL())
	}
	_, port, err := net.SplitHostPort(remote.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cookie := "mailhaul" + port + "="
	for _, tc := range []struct {
		name   string
		door   *Door
		method string
		path   string
		header map[string]string
		want   int
	}{
		{"the page", local, "GET", "/", nil, 200},
		{"by name", local, "GET", "/", map[string]string{"Host": "localhost:9"}, 200},
		{"by IPv6", local, "GET", "/", map[string]string{"Host": "[::1]:9"}, 200},
		{"a name that leads here (DNS rebinding)", local, "GET", "/", map[string]string{"Host": "evil.example:8080"}, 403},
		{"the stream by such a name", local, "GET", "/events", map[string]string{"Host": "evil.example"}, 403},
		{"another machine's address", local, "GET", "/", map[string]string{"Host": "192.0.2.1"}, 403},
		{"nothing is changed here", local, "POST", "/", nil, 405},
		{"nor here", local, "DELETE", "/events", nil, 405},
		{"no such page", local, "GET", "/nothing", nil, 404},
		{"the stream for another's page", local, "GET", "/events", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"without the token", remote, "GET", "/", nil, 401},
		{"the stream without the token", remote, "GET", "/events", nil, 401},
		{"a wrong token", remote, "GET", "/?token=" + strings.Repeat("A", 26), nil, 401},
		{"an empty token", remote, "GET", "/?token=", nil, 401},
		{"the token", remote, "GET", "/?token=" + remote.token, nil, 303},
		{"the cookie", remote, "GET", "/", map[string]string{"Cookie": cookie + remote.token}, 200},
		{"a wrong cookie", remote, "GET", "/", map[string]string{"Cookie": cookie + "x"}, 401},
		{"the token of a stranger's name", remote, "GET", "/?token=" + remote.token, map[string]string{"Host": "evil.example"}, 403},
		{"by an address of this machine", remote, "GET", "/?token=" + remote.token, map[string]string{"Host": "192.0.2.1:80"}, 303},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, port, _ := net.SplitHostPort(tc.door.listener.Addr().String())
			ctx, cancel := context.WithTimeout(t.Context(), long)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, tc.method, "http://127.0.0.1:"+port+tc.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range tc.header {
				req.Header.Set(k, v)
			}
			req.Host = tc.header["Host"]
			client := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != tc.want {
				t.Errorf("%s, want %d", res.Status, tc.want)
			}
			policy := res.Header.Get("Content-Security-Policy")
			for _, part := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "script-src 'sha256-"} {
				if !strings.Contains(policy, part) {
					t.Errorf("the policy lacks %s: %s", part, policy)
				}
			}
			if strings.Contains(policy, "unsafe") {
				t.Errorf("the policy is %s", policy)
			}
			if tc.want == 303 {
				c := res.Cookies()
				if len(c) != 1 || c[0].Value != remote.token || !c[0].HttpOnly || c[0].SameSite != http.SameSiteLaxMode || res.Header.Get("Location") != "/" {
					t.Errorf("cookies %v, on to %s", c, res.Header.Get("Location"))
				}
			}
		})
	}
}

// stream is a page that reads the events as a browser does.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	in   *bufio.Scanner
}

func (d *Door) stream(t *testing.T, query url.Values) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+d.listener.Addr().String()+"/events?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %s", res.Status, res.Header.Get("Content-Type"))
	}
	s := &stream{t: t, body: res.Body, in: bufio.NewScanner(res.Body)}
	s.in.Buffer(nil, 16<<20)
	return s
}

// next returns the next frame; ok is false when there is none any more.
func (s *stream) next() (f frame, ok bool) {
	s.t.Helper()
	for s.in.Scan() {
		data, found := strings.CutPrefix(s.in.Text(), "data: ")
		if !found {
			continue
		}
		if err := json.Unmarshal([]byte(data), &f); err != nil {
			s.t.Fatal(err)
		}
		return f, true
	}
	return f, false
}

// until returns the first frame of which something holds.
func (s *stream) until(what string, holds func(frame) bool) frame {
	s.t.Helper()
	for {
		f, ok := s.next()
		if !ok {
			s.t.Fatalf("this never came: %s (%v)", what, s.in.Err())
		}
		if holds(f) {
			return f
		}
	}
}

// TestStream: a page gets all once, then what changes, and the end; one that
// comes back gets what it missed.
func TestStream(t *testing.T) {
	t.Parallel()
	b := newBoard(t, 50)
	_, d := serve(t, b, "127.0.0.1:0")
	s := d.stream(t, nil)
	first, _ := s.next()
	if first.Run == nil || first.Run.Pipeline != "acme" || len(first.Accounts) != 50 || first.States["waiting"] != 50 || first.State != "running" {
		t.Fatalf("the first frame: %+v", first)
	}
	bad := fault.New(fault.Auth, "the server refuses <b>the password</b>").WithHint("look at it")
	b.Event(engine.Event{Kind: engine.AccountOpened, Source: "user0003", Text: "imap://u@h"})
	b.Event(engine.Event{Kind: engine.AccountFailed, Source: "user0007", Err: bad})
	changed := s.until("what changed", func(f frame) bool { return f.States["failed"] == 1 })
	if changed.Run != nil || len(changed.Accounts) > 2 {
		t.Errorf("more than what changed: %+v", changed)
	}
	f := changed.Failures
	if len(f) != 1 || f[0].Count != 1 || f[0].Reason != "auth" || f[0].Hint != "look at it" || f[0].Names[0] != "user0007" {
		t.Errorf("failures: %+v", f)
	}
	s.body.Close()

	b.Event(engine.Event{Kind: engine.AccountDone, Source: "user0003"})
	again := d.stream(t, url.Values{"since": {fmt.Sprint(changed.Version)}, "id": {changed.Board}})
	missed, _ := again.next()
	if missed.Run != nil || len(missed.Accounts) != 1 || missed.Accounts[0].Name != "user0003" {
		t.Errorf("who comes back gets %+v", missed)
	}
	stranger, _ := d.stream(t, url.Values{"since": {fmt.Sprint(changed.Version)}, "id": {"of another run"}}).next()
	if stranger.Run == nil || len(stranger.Accounts) != 50 {
		t.Error("who knew another run must begin anew")
	}

	b.End(&engine.Result{Accounts: []engine.Account{{Source: "user0000", Began: true}}, Err: errors.New("broken")}, engine.ExitStopped)
	end := again.until("the end", func(f frame) bool { return f.End != nil })
	if end.State != "ended" || end.End.Exit != 1 || end.End.Error != "broken" || end.End.Text != "stopped" {
		t.Errorf("the end: %+v", end.End)
	}
	if _, more := again.next(); more {
		t.Error("the stream goes on after the end")
	}
}

// TestNobodyWaitsForABrowser: pages that read nothing don't hold up events, nor
// the end; there is a bound on how many there are.
func TestNobodyWaitsForABrowser(t *testing.T) {
	t.Parallel()
	b := newBoard(t, 3000)
	s, d := serve(t, b, "127.0.0.1:0")
	for range mostWatchers {
		c, err := net.Dial("tcp", d.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.(*net.TCPConn).SetReadBuffer(1 << 10); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	for end := time.Now().Add(long); s.open.Load() < mostWatchers; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d pages are open", s.open.Load())
		}
	}
	res, err := http.Get("http://" + d.listener.Addr().String() + "/events")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one page too many: %s", res.Status)
	}
	text := strings.Repeat("trouble ", 50)
	for i := range 30_000 {
		b.Event(engine.Event{Kind: engine.DeadLetter, Source: fmt.Sprintf("user%04d", i%3000), Reason: fmt.Sprint(i % 100), Text: text})
	}
	b.mu.Lock()
	news, groups := len(b.news), len(b.letters)
	b.mu.Unlock()
	if news > mostNews || groups > mostGroups+1 {
		t.Errorf("%d happenings and %d reasons are kept", news, groups)
	}
	b.End(&engine.Result{}, engine.ExitDone)
}

// TestNothingIsReadWhileNobodyLooks: the sums of mailboxes lock what the run
// locks.
func TestNothingIsReadWhileNobodyLooks(t *testing.T) {
	t.Parallel()
	b := newBoard(t, 10)
	b.Event(engine.Event{Kind: engine.AccountOpened, Source: "user0001"})
	b.tick()
	b.mu.Lock()
	due := len(b.due)
	b.mu.Unlock()
	if due != 1 {
		t.Errorf("%d accounts wait to be looked at, want the one that is open", due)
	}
	leave := b.watch()
	b.mu.Lock()
	due = len(b.due)
	b.mu.Unlock()
	if due != 0 {
		t.Errorf("%d accounts weren't looked at when somebody came", due)
	}
	leave()
}

// BenchmarkEvent is what the page costs a run for each event.
func BenchmarkEvent(b *testing.B) {
	r := Run{Sources: []string{"a"}, Stats: &engine.Stats{}, Timeline: func() report.Timeline { return report.Timeline{} }, Began: time.Now()}
	board := NewBoard(r)
	defer board.Close()
	defer board.watch()()
	b.ReportAllocs()
	for b.Loop() {
		board.Event(engine.Event{Kind: engine.Committed, Count: 1})
	}
}

// BenchmarkFirstFrame is what a page of 3,000 accounts costs when it is opened.
func BenchmarkFirstFrame(b *testing.B) {
	r := Run{Stats: &engine.Stats{}, Timeline: func() report.Timeline { return report.Timeline{} }, Began: time.Now()}
	for i := range 3000 {
		r.Sources = append(r.Sources, fmt.Sprintf("user%04d", i))
	}
	board := NewBoard(r)
	defer board.Close()
	b.ReportAllocs()
	for b.Loop() {
		f := board.frame(0, nil, 0)
		data, err := json.Marshal(f)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(data)))
	}
}
