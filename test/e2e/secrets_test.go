package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/imapscript"
	"github.com/mailhaul/pipeline/test/popscript"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// canary is a secret that can be told from all else, with all that a quoting
// may change.
const canary = `c4näry"b1rd\ %41&=<s1ngs>'+/Ω`

// song are the ways in which the canary may show: a part of it that no quoting
// leaves as it was, and the same in each other way of writing it.
func song() []string {
	var out []string
	for _, piece := range []string{"c4näry", "s1ngs", "b1rd"} {
		quoted := strconv.QuoteToASCII(piece)
		out = append(out, piece, quoted[1:len(quoted)-1], url.QueryEscape(piece), strings.ToLower(url.QueryEscape(piece)),
			hex.EncodeToString([]byte(piece)), strings.ToUpper(hex.EncodeToString([]byte(piece))), html.EscapeString(piece))
		for before := range 3 {
			all := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x00", before) + piece))
			out = append(out, all[(8*before+5)/6:8*(before+len(piece))/6])
		}
	}
	return out
}

// silent fails the test where a text has the canary.
func silent(t *testing.T, where, text string) {
	t.Helper()
	for _, s := range song() {
		if at := strings.Index(text, s); at >= 0 {
			t.Errorf("I9: %s has the secret, as %q: …%s…", where, s, text[max(0, at-200):min(len(text), at+len(s)+100)])
			return
		}
	}
}

// silentTree looks into all files of a job, and into archives, but for those
// that the user wrote the secret into.
func silentTree(t *testing.T, j *job, but ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(j.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(j.dir, path)
		if err != nil {
			return err
		}
		for _, b := range but {
			if name == b {
				return nil
			}
		}
		octets, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		silent(t, name, string(octets))
		if z, err := gzip.NewReader(bytes.NewReader(octets)); err == nil {
			for r := tar.NewReader(z); ; {
				h, err := r.Next()
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				inside, err := io.ReadAll(r)
				if err != nil {
					return err
				}
				silent(t, name+" "+h.Name, string(inside))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 3 {
		t.Errorf("only %d files were looked into", files)
	}
}

// lastSong is the end of a file, where a run writes all that it can.
const lastSong = `report: {json: out/report.json, html: out/report.html, csv: out/report.csv}
custody: {path: out/custody}
`

// TestSecretsAreNotTold has servers refuse a password, a token and a client
// secret, and tell them back in their answers, in the ways in which they came.
// Nobody tells them on: on the terminal, in events, logs, reports or ledger
// (I9).
func TestSecretsAreNotTold(t *testing.T) {
	t.Parallel()
	imap := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 AUTH=PLAIN SASL-IR AUTH=XOAUTH2",
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "LOGIN" || verb == "AUTHENTICATE" {
				c.Write("* OK you say %s %s\r\n%s NO [AUTHENTICATIONFAILED] I don't like %s %s\r\n", verb, args, tag, verb, args)
				return true
			}
			return false
		}})
	bare := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1",
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "LOGIN" {
				c.Write("%s NO I don't like %s %s, which is %q\r\n", tag, verb, args, canary)
				return true
			}
			return false
		}})
	pop := func(capa ...string) *popscript.Server {
		return popscript.Start(t, popscript.Script{CAPA: capa, Command: func(c *popscript.Conn, verb, args string) bool {
			if verb == "PASS" || verb == "AUTH" {
				c.Write("-ERR [AUTH] I don't like %s %s\r\n", verb, args)
				return true
			}
			return false
		}})
	}
	const granted = "c4näry-b1rd-s1ngs-of-a-token"
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/grants" {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token": %q, "token_type": "Bearer", "expires_in": 3600}`, granted)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		said, _ := json.Marshal(map[string]string{"error": "invalid_client", "error_description": "not " + string(body) + " nor " + r.FormValue("client_secret")})
		w.Write(said)
	}))
	t.Cleanup(tokens.Close)
	oauth := func(path string) string {
		return fmt.Sprintf(`, auth: {mechanism: xoauth2}, oauth2: {client_id: app, client_secret: "${env:PASSWORD}", token_url: %q}`, tokens.URL+path)
	}
	for name, f := range map[string]file{
		"IMAP AUTHENTICATE PLAIN":      {address: imap.Addr},
		"IMAP LOGIN":                   {address: bare.Addr},
		"IMAP token":                   {address: imap.Addr, config: `, auth: {mechanism: xoauth2, token: "${env:PASSWORD}"}`},
		"POP3 PASS":                    {plugin: "pop3", address: pop("USER", "UIDL").Addr},
		"POP3 AUTH PLAIN":              {plugin: "pop3", address: pop("SASL PLAIN", "UIDL").Addr},
		"client secret":                {address: imap.Addr, config: oauth("/refuses")},
		"access token of the endpoint": {address: imap.Addr, config: oauth("/grants")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, f.String()+lastSong)
			j.env = append(j.env, "PASSWORD="+canary)
			for _, args := range [][]string{{"run", "--debug"}, {"run", "--json", "--debug"}, {"ls", "alice", "--debug"}} {
				o := j.start(args...).wait()
				if o.code == 0 {
					t.Errorf("pipeline %v: it was let in: %s", args, o)
				}
				silent(t, fmt.Sprint("pipeline ", args), o.out+o.err)
				if args[0] == "run" && len(args) == 2 {
					needs(t, o.err, "error: ", "(secret)", "hint: ")
				}
			}
			silentTree(t, j)
		})
	}
}

// TestSecretsAreOnlyWhereTheyMustBe runs with passwords that are right. They
// are in the user's own file, in the environment that the user gave the host,
// and in no other place: no command line, no environment of a plugin, no dump
// of a plugin that dies, no file.
func TestSecretsAreOnlyWhereTheyMustBe(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	users, err := os.ReadFile(filepath.Join(server.Dir, "users"))
	if err != nil {
		t.Fatal(err)
	}
	deliver(server, 30, 10_000)
	users = bytes.ReplaceAll(users, []byte(dovecot.Password), []byte(canary))
	if err := os.WriteFile(filepath.Join(server.Dir, "users"), users, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, from := range []struct{ name, reference, secretFile string }{
		{"environment", "${env:PASSWORD}", ""},
		{"file", "${file:secret.txt}", "secret.txt"},
		{"command", "${exec:cat secret.txt}", "secret.txt"},
	} {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			proxy := wireproxy.Start(t, server.IMAP)
			proxy.Break(func(int) (int64, wireproxy.Way) { return 60_000, wireproxy.Silence })
			j := newJob(t, strings.Replace(file{address: proxy.Addr}.String(), "${env:PASSWORD}", from.reference, 1)+lastSong)
			if from.secretFile == "" {
				j.env = append(j.env, "PASSWORD="+canary)
			} else if err := os.WriteFile(j.path(from.secretFile), []byte(canary+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r := j.start("run", "--debug")
			until(t, "the middle of the run", func() bool { return proxy.Down() >= 60_000 })
			pids := children(r.cmd.Process.Pid)
			pids[r.cmd.Process.Pid] = "pipeline"
			for pid, name := range pids {
				if limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid)); err == nil && len(limits) > 0 { // else it has ended
					wantNoCore(t, name, limits)
				}
				for _, what := range []string{"cmdline", "environ"} {
					text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, what))
					if err != nil {
						continue // it has ended
					}
					if name == "pipeline" && what == "environ" && from.secretFile == "" {
						if !bytes.Contains(text, []byte("s1ngs")) {
							t.Error("the host's environment lacks what the user put there: the test looks in the wrong place")
						}
						continue
					}
					silent(t, "the "+what+" of "+name, string(text))
				}
			}
			// Dies with the stacks of all that it was doing on its standard error.
			if err := syscall.Kill(r.child("pipeline-source-imap"), syscall.SIGQUIT); err != nil {
				t.Fatal(err)
			}
			proxy.Heal()
			o := r.wait()
			if o.code != 0 && o.code != 4 { // a source that dies over a bad link may give up
				t.Errorf("the run of which a plugin died: exit code %d, want 0 or 4", o.code)
			}
			needs(t, o.err, "goroutine ") // the dump is in the log
			silent(t, "the run", o.out+o.err)
			for _, args := range [][]string{
				{"run", "--json", "--debug"}, {"plan"}, {"status", "--json"}, {"lint"}, {"ls", "alice", "INBOX", "--json", "--debug"},
				{"get", "alice", "INBOX", "--uid", "1", "--as", "json", "--debug"}, {"verify", "--json", "--debug"}, {"state", "export", "moved.tar.gz"},
			} {
				o := j.run(0, args...)
				silent(t, fmt.Sprint("pipeline ", args), o.out+o.err)
			}
			silentTree(t, j, from.secretFile)
		})
	}
}
