// Package s3server runs a real S3 server for tests: versitygw over a folder,
// with a proxy before it that is slow, fails or asks to slow down when a test
// wants that.
package s3server

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/program"
)

// The credentials of the server.
const (
	AccessKey = "TESTACCESSKEY"
	SecretKey = "test-secret-key-0123456789"
)

// Server is a server with a proxy before it.
type Server struct {
	URL    string // of the proxy
	Folder string // a folder in it is a bucket
	CA     string // file with the authority that signed the proxy's certificate; empty: it speaks no TLS

	proxy *httptest.Server
	spawn func() // starts the server itself
	kill  func() // kills it

	mu     sync.Mutex
	trip   time.Duration              // before an answer
	mishap func(*http.Request) Mishap // nil: none
	calls  map[string]int             // by method
}

// Mishap is what becomes of a request.
type Mishap int

// The mishaps.
const (
	None      Mishap = iota
	SlowDown         // 503 SlowDown, as S3 answers
	Broken           // 500 InternalError, the request wasn't done
	CutOff           // the connection ends before the request is done
	CutAfter         // the connection ends after it was done: nobody hears of it
	Silent           // the request is taken, and nothing ever answered
	Forbidden        // 403 AccessDenied
	Refused          // 400 InvalidRequest, as for a key that the server doesn't like
	Expired          // 400 ExpiredToken
	Trickling        // it is done, and answered ten octets at a time
)

// Start starts a server with the buckets, until the test ends.
func Start(t testing.TB, buckets ...string) *Server {
	t.Helper()
	return start(t, false, buckets)
}

// StartTLS is Start with a proxy that speaks TLS, with a certificate of an
// authority that nobody knows.
func StartTLS(t testing.TB, buckets ...string) *Server {
	t.Helper()
	return start(t, true, buckets)
}

func start(t testing.TB, secure bool, buckets []string) *Server {
	t.Helper()
	path, err := program.Find("the S3 server versitygw", "versitygw", "s3", "MAILHAUL_S3SERVER")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "mhs3-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Folder: filepath.Join(dir, "data"), calls: map[string]int{}}
	for _, b := range append(buckets, ".") {
		if err := os.MkdirAll(filepath.Join(s.Folder, b), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "s3.sock")
	var said program.Output
	dial := func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", socket) }
	s.spawn = func() {
		p := program.Start(t, &said, path, "--port", socket, "--access", AccessKey, "--secret", SecretKey, "--keep-alive", "--quiet",
			"posix", s.Folder)
		s.kill = p.Kill
		p.Await(t, "the S3 server", func(ctx context.Context) error {
			c, err := dial(ctx)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	s.spawn()
	t.Cleanup(func() { s.kill() })
	to, err := url.Parse("http://s3.test")
	if err != nil {
		t.Fatal(err)
	}
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // it is part of what is signed
		},
		Transport: &http.Transport{
			DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			MaxIdleConnsPerHost: 256, DisableCompression: true,
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	s.proxy = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(reverse, w, r) }))
	s.proxy.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that don't trust it are part of the tests
	if secure {
		s.proxy.StartTLS()
		s.CA = filepath.Join(dir, "ca.pem")
		b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.proxy.Certificate().Raw})
		if err := os.WriteFile(s.CA, b, 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		s.proxy.Start()
	}
	t.Cleanup(s.proxy.Close)
	s.URL = s.proxy.URL
	return s
}

// Kill kills the server itself; what it had begun stays as it is. Calls are
// cut off until Restart. One goroutine calls the two, and not when the test
// ends.
func (s *Server) Kill() { s.kill() }

// Restart starts the server again, over the same folder.
func (s *Server) Restart() { s.spawn() }

// Address returns the address of a place in a bucket.
func (s *Server) Address(place string) string {
	return "s3://" + place + "?region=us-east-1&endpoint=" + url.QueryEscape(s.URL)
}

// Environ is the environment in which the SDK finds the credentials, and
// nothing of this machine's.
func (s *Server) Environ() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + AccessKey, "AWS_SECRET_ACCESS_KEY=" + SecretKey,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
}

// Setenv sets Environ for the test's own process.
func Setenv(t *testing.T) {
	for _, v := range (&Server{}).Environ() {
		for i := range v {
			if v[i] == '=' {
				t.Setenv(v[:i], v[i+1:])
				break
			}
		}
	}
}

// Delay makes every answer take that much longer.
func (s *Server) Delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trip = d
}

// Fail lets f decide what becomes of each request; nil: nothing happens to any.
func (s *Server) Fail(f func(*http.Request) Mishap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mishap = f
}

// Sometimes returns a decision that gives one request in n a mishap, in an
// order that the seed decides.
func Sometimes(seed uint64, n int, of ...Mishap) func(*http.Request) Mishap {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1))
	return func(*http.Request) Mishap {
		mu.Lock()
		defer mu.Unlock()
		if r.IntN(n) != 0 {
			return None
		}
		return of[r.IntN(len(of))]
	}
}

// Calls returns how many requests of a method there were.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *Server) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.calls[r.Method]++
	trip, decide := s.trip, s.mishap
	s.mu.Unlock()
	mishap := None
	if decide != nil {
		mishap = decide(r)
	}
	if trip > 0 {
		select {
		case <-time.After(trip): // that is what is tested: a server far away
		case <-r.Context().Done():
			return
		}
	}
	switch mishap {
	case SlowDown:
		refuse(w, r, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	case Broken:
		refuse(w, r, http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
	case Forbidden:
		refuse(w, r, http.StatusForbidden, "AccessDenied", "Access Denied")
	case Refused:
		refuse(w, r, http.StatusBadRequest, "InvalidRequest", "The key is not welcome.")
	case Expired:
		refuse(w, r, http.StatusBadRequest, "ExpiredToken", "The provided token has expired.")
	case Silent:
		_, _ = io.Copy(io.Discard, r.Body) // else nobody notices that the client has gone
		<-r.Context().Done()
	case Trickling:
		next.ServeHTTP(&trickle{w}, r)
	case CutOff:
		panic(http.ErrAbortHandler)
	case CutAfter:
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	default:
		next.ServeHTTP(w, r)
	}
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, r *http.Request, status int, code, text string) {
	_, _ = io.Copy(io.Discard, r.Body) // the client may be gone
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>", code, text)
}

// trickle writes ten octets at a time, with pauses.
type trickle struct{ http.ResponseWriter }

// Write implements http.ResponseWriter.
func (w *trickle) Write(p []byte) (int, error) {
	for done := 0; done < len(p); done += 10 {
		if _, err := w.ResponseWriter.Write(p[done:min(done+10, len(p))]); err != nil {
			return done, err
		}
		if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
			return done, err
		}
		time.Sleep(50 * time.Millisecond) // that is what is tested
	}
	return len(p), nil
}
