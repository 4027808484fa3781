package livepage

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed" // the page
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/mailhaul/pipeline/internal/report"
)

// Bounds of the server.
const (
	mostConnections = 64               // strangers must not use up the run's files
	mostWatchers    = 16               // pages open at once
	mostOpen        = 20               // accounts open on a page
	patience        = 10 * time.Second // for a browser that doesn't take what it asked for
	quiet           = 2 * time.Second  // a page hears something at least so often
	farewell        = 2 * time.Second  // for pages to hear how the run ended
)

//go:embed page.html
var pageText string

//go:embed page.css
var styleText string

//go:embed page.js
var scriptText string

// Server shows a board.
type Server struct {
	door    *Door
	board   *Board
	log     *slog.Logger
	http    *http.Server
	page    []byte
	policy  string
	open    atomic.Int64 // streams
	stopped chan struct{}
}

// Serve shows a board behind a door. Close must be called.
func Serve(d *Door, b *Board, log *slog.Logger) *Server {
	style, script := "\n"+report.Style()+styleText, "\n"+scriptText
	s := &Server{
		door: d, board: b, log: log, stopped: make(chan struct{}),
		page: []byte(strings.NewReplacer("{{style}}", style, "{{script}}", script).Replace(pageText)),
		policy: "default-src 'none'; style-src 'sha256-" + hash(style) + "'; script-src 'sha256-" + hash(script) + "'; connect-src 'self'; img-src data:; " +
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.document)
	mux.HandleFunc("/events", s.events)
	s.http = &http.Server{
		Handler: s.guard(mux), ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: patience, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	go func() {
		defer close(s.stopped)
		if err := s.http.Serve(netutil.LimitListener(d.listener, mostConnections)); err != http.ErrServerClosed {
			log.Warn("the live page can't be had any more", "err", err)
		}
	}()
	return s
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Close gives pages that are open a moment to hear how the run ended, and ends
// the server.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.log.Debug("a page didn't hear how the run ended", "err", err)
		s.http.Close()
	}
	<-s.stopped
}

// guard lets in who may see the page.
func (s *Server) guard(next http.Handler) http.Handler {
	cookie := "mailhaul"
	if a, ok := s.door.listener.Addr().(*net.TCPAddr); ok {
		cookie += strconv.Itoa(a.Port) // cookies don't tell ports apart
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", s.policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !s.door.called(r.Host):
			http.Error(w, "This page isn't to be had under that name. Use the URL that the run printed.", http.StatusForbidden)
		case r.Method != http.MethodGet:
			h.Set("Allow", http.MethodGet)
			http.Error(w, "This page is only to be read.", http.StatusMethodNotAllowed)
		case s.door.token == "":
			next.ServeHTTP(w, r)
		case s.right(r.URL.Query().Get("token")):
			if r.URL.Path != "/" {
				next.ServeHTTP(w, r)
				return
			}
			// The browser keeps it, and it is gone from the address bar.
			http.SetCookie(w, &http.Cookie{Name: cookie, Value: s.door.token, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
			http.Redirect(w, r, "/", http.StatusSeeOther)
		default:
			if c, err := r.Cookie(cookie); err == nil && s.right(c.Value) {
				next.ServeHTTP(w, r)
				return
			}
			http.Error(w, "This page asks for a token. Use the whole URL that the run printed.", http.StatusUnauthorized)
		}
	})
}

// right compares in constant time.
func (s *Server) right(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(s.door.token)) == 1
}

func (s *Server) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(s.page) // a browser that has gone is its own affair
}

// events is the stream: a frame at once, then one a few times a second where
// something changed. A page says what it has (since, of the board id) and which
// accounts it shows open.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	if from := r.Header.Get("Sec-Fetch-Site"); from != "" && from != "same-origin" && from != "none" {
		http.Error(w, "This is for this page alone.", http.StatusForbidden)
		return
	}
	if s.open.Add(1) > mostWatchers {
		s.open.Add(-1)
		http.Error(w, "Too many pages are open.", http.StatusServiceUnavailable)
		return
	}
	defer s.open.Add(-1)
	q := r.URL.Query()
	since, err := strconv.ParseInt(q.Get("since"), 10, 64)
	if err != nil || q.Get("id") != s.board.id {
		since = 0
	}
	open := accounts(q.Get("open"))
	if q.Get("open") == "few" && len(s.board.accounts) <= 3 {
		open = []int{0, 1, 2}
	}
	defer s.board.watch()()
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	shown := int64(0) // version of the mailboxes that it has of open accounts
	var told time.Time
	for {
		ticked := s.board.next()
		f := s.board.frame(since, open, shown)
		if told.IsZero() || f.Version > since || time.Since(told) >= quiet {
			if !send(w, control, &f) || f.State == "ended" {
				return
			}
			since, shown, told = f.Version, f.Version, time.Now()
		}
		select {
		case <-ticked:
		case <-r.Context().Done():
			return
		}
	}
}

// send writes a frame. A browser that doesn't take it in time is dropped: it
// comes back and says what it has.
func send(w http.ResponseWriter, control *http.ResponseController, f *frame) bool {
	data, err := json.Marshal(f)
	if err != nil {
		return false
	}
	if control.SetWriteDeadline(time.Now().Add(patience)) != nil {
		return false
	}
	data = append(append([]byte("data: "), data...), "\n\n"...)
	if _, err := w.Write(data); err != nil {
		return false
	}
	return control.Flush() == nil
}

// accounts reads a list of accounts that a page shows open.
func accounts(list string) []int {
	var out []int
	for _, word := range strings.Split(list, ",") {
		if n, err := strconv.Atoi(word); err == nil && len(out) < mostOpen {
			out = append(out, n)
		}
	}
	return out
}
