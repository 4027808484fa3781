package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/leak"
)

var update = flag.Bool("update", false, "rewrite what the scripts expect")

func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"pipeline": main})
}

// tests removes what the tests built when they are through.
type tests struct{ *testing.M }

func (m tests) Run() int {
	code := leak.Main(m.M)
	if dir, err := plugins(); err == nil {
		os.RemoveAll(dir)
	}
	return code
}

// install is how a newcomer installs (docs/start.md).
const install = "go install ./cmd/pipeline ./plugins/..."

// plugins installs the command and all our plugins, once, and returns their
// folder.
var plugins = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "plugins")
	if err != nil {
		return "", err
	}
	build := exec.Command("sh", "-c", install)
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+dir, "GOFLAGS=-trimpath -buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("%s: %w\n%s", install, err, out)
	}
	return dir, nil
})

// inScript is the key of what a script has beside its folder.
type inScript struct{}

// script is what a script has beside its folder.
type script struct {
	tb     testing.TB
	server *dovecot.Server
}

// TestScripts runs the scripts below testdata/script: each is a folder with
// files and a list of commands, of which `pipeline` is this command itself.
// Beside testscript's own words (https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript)
// a script has:
//
//	exits CODE COMMAND…          the command ends with just that exit code
//	dovecot [OPTION] USER…       a server of the script's own: $IMAP, $IMAPS, $POP3, $POP3S, $CA; passwords are $PASSWORD.
//	                             OPTIONs: -expired, -separator=., -sent=NAME (the mailbox for sent mail), -xoauth2
//	                             (the token is the password), -pop3=KEY=VALUE (a setting for POP3)
//	deliver USER MAILBOX N       so many small messages, a day apart, from 2026-01-01 on
//	deliver USER MAILBOX FILE…   these messages, their lines ended by CRLF
//	doveadm ARG…                 doveadm against that server
//	tokens [ERROR]               an OAuth2 endpoint at $TOKENS with a device flow that a person agrees to
//	                             at the second question, or ends with an error as in access_denied
//	reconfigure KEY VALUE        a setting for POP3 of that server, which restarts
//	keep NAME                    what the last command printed, as a variable
//	application ID SECRET        an OAuth2 token endpoint, $TOKEN_URL, that gives that application $PASSWORD as its token
//	hold FILE                    locks a file as another run would, until the script ends
//
// $REPO is the repository.
func TestScripts(t *testing.T) {
	t.Parallel()
	dir, err := plugins()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			tb, ok := env.T().(testing.TB)
			if !ok {
				return fmt.Errorf("%T is no testing.TB", env.T())
			}
			env.Values[inScript{}] = &script{tb: tb}
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("TMPDIR", os.TempDir()) // the path of a unix socket must be short
			env.Setenv("PIPELINE_PLUGIN_PATH", dir)
			env.Setenv("PASSWORD", dovecot.Password)
			env.Setenv("REPO", repo)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "dovecot": startDovecot, "deliver": deliver, "doveadm": doveadm, "hold": hold, "application": application, "keep": keep, "tokens": tokens, "reconfigure": reconfigure,
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func startDovecot(ts *testscript.TestScript, neg bool, args []string) {
	var o dovecot.Options
	for _, arg := range args {
		separator, dots := strings.CutPrefix(arg, "-separator=")
		sent, special := strings.CutPrefix(arg, "-sent=")
		key, pop3 := strings.CutPrefix(arg, "-pop3=")
		switch {
		case pop3:
			o.Extra += fmt.Sprintf("protocol pop3 {\n  %s\n}\n", key)
		case special:
			o.Extra += fmt.Sprintf("namespace inbox {\n  mailbox %s {\n    special_use = \\Sent\n  }\n}\n", sent)
		case arg == "-expired":
			o.ExpiredCert = true
		case arg == "-xoauth2":
			o.Extra += "auth_mechanisms = plain login xoauth2\n"
		case dots:
			o.Separator = separator
		default:
			o.Users = append(o.Users, arg)
		}
	}
	s := ts.Value(inScript{}).(*script)
	if neg || s.server != nil {
		ts.Fatalf("one server a script")
	}
	s.server = dovecot.Start(s.tb, o)
	for name, value := range map[string]string{
		"IMAP": s.server.IMAP, "IMAPS": s.server.IMAPS, "POP3": s.server.POP3, "POP3S": s.server.POP3S, "CA": s.server.CAFile,
	} {
		ts.Setenv(name, value)
	}
}

func server(ts *testscript.TestScript) *dovecot.Server {
	s := ts.Value(inScript{}).(*script)
	if s.server == nil {
		ts.Fatalf("there is no server: write `dovecot USER` before")
	}
	return s.server
}

func deliver(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: deliver USER MAILBOX N|FILE…")
	}
	s, began := server(ts), time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	put := func(raw string, i int) {
		s.Deliver(args[0], args[1], []byte(strings.ReplaceAll(raw, "\n", "\r\n")), began.AddDate(0, 0, i))
	}
	if n, err := strconv.Atoi(args[2]); err == nil {
		for i := range n {
			put(fmt.Sprintf("From: Ann <ann@x.test>\nTo: %[1]s@x.test\nSubject: %[2]s %[3]d\nDate: %[4]s\nMessage-ID: <%[3]d.%[2]s.%[1]s@x.test>\n\nhello\n",
				args[0], args[1], i+1, began.AddDate(0, 0, i).Format(time.RFC1123Z)), i)
		}
		return
	}
	for i, file := range args[2:] {
		put(ts.ReadFile(file), i)
	}
}

func doveadm(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("doveadm fails the test by itself")
	}
	fmt.Fprint(ts.Stdout(), server(ts).Doveadm(args...))
}

func reconfigure(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: reconfigure KEY VALUE")
	}
	server(ts).Configure(fmt.Sprintf("protocol pop3 {\n  %s = %s\n}\n", args[0], args[1]))
}

func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keep NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func tokens(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: tokens [ERROR]")
	}
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/device":
			fmt.Fprint(w, `{"device_code":"d","user_code":"ABCD-EFGH","verification_uri":"https://login.test/device","expires_in":60,"interval":1}`)
		case asked.Add(1) == 1:
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"authorization_pending"}`)
		case len(args) == 1:
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":%q,"error_description":"as the script says"}`, args[0])
		default:
			fmt.Fprint(w, `{"access_token":"a","token_type":"Bearer","expires_in":3600,"refresh_token":"s3cret-refresh"}`)
		}
	}))
	ts.Defer(s.Close)
	ts.Setenv("TOKENS", s.URL)
}

// application is an OAuth2 token endpoint for client credentials (RFC 6749 §4.4).
func application(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: application ID SECRET")
	}
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		id, secret, basic := r.BasicAuth()
		if !basic {
			id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
		}
		if id != args[0] || secret != args[1] || r.PostFormValue("grant_type") != "client_credentials" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error": "invalid_client", "error_description": "no such application"}`)
			return
		}
		fmt.Fprintf(w, `{"access_token": %q, "token_type": "Bearer", "expires_in": 3600}`, dovecot.Password)
	}))
	ts.Defer(endpoint.Close)
	ts.Setenv("TOKEN_URL", endpoint.URL)
}

func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hold FILE")
	}
	lock, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR|os.O_CREATE, 0o600)
	ts.Check(err)
	ts.Check(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	ts.Defer(func() { lock.Close() })
}
