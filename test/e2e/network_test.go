package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// networkVariable is how many places connections are broken at, of each way to
// talk to a server and each way to break; make network tries more of them.
const (
	networkVariable = "MAILHAUL_NETWORK"
	networkPlaces   = 1
)

// link is a way to talk to a server, through a proxy that spoils it.
type link struct {
	plugin, security string
	address          string // of the server
	config           string // more keys
}

func (l link) String() string { return l.plugin + " " + l.security }

// impatient are the file's own keys, so low that a silent server is given up
// within the test.
const impatient = ", timeouts: {connect: 2s, read: 1500ms, write: 2s}"

func (l link) file(proxy *wireproxy.Proxy, more string) string {
	return file{address: proxy.Addr, plugin: l.plugin, security: l.security, config: l.config + more}.String()
}

// exported is what an export holds that another of the same mail must hold too:
// the files, and the lines of the index, but for the server's address.
func exported(t *testing.T, j *job, address string) map[string]string {
	t.Helper()
	out := mails(t, j.path("export/eml"))
	for id, e := range index(t, j.path("export/index.jsonl")) {
		out["line of "+strings.ReplaceAll(id, address, "server")] = strings.ReplaceAll(e.line, address, "server")
	}
	return out
}

// TestNetworkFaults spoils the way to a real server, of both protocols, plain
// and under TLS. Each run ends within its deadlines: complete, or with each
// failure named. The undisturbed run that follows completes, and leaves what
// an export leaves that was never disturbed (I1, I2).
func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	places := networkPlaces
	if text := os.Getenv(networkVariable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q is no number of places", networkVariable, text)
		}
		places = n
	}
	server := dovecot.Start(t, dovecot.Options{})
	deliver(server, 9, 1500)
	deliver(server, 1, 60_000) // more than goes with one read
	ca := fmt.Sprintf(", tls: {ca_file: %q}", server.CAFile)
	for _, l := range []link{
		{"imap", "none", server.IMAP, ""},
		{"imap", "tls", server.IMAPS, ca},
		{"imap", "starttls", server.IMAP, ca},
		{"pop3", "none", server.POP3, ""},
		{"pop3", "tls", server.POP3S, ca},
		{"pop3", "starttls", server.POP3, ca},
	} {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			proxy := wireproxy.Start(t, l.address)
			j := newJob(t, l.file(proxy, ""))
			j.run(0, "run")
			want := exported(t, j, proxy.Addr)
			if len(want) < 14 {
				t.Fatalf("an undisturbed export has %d files and lines: %v", len(want), slices.Sorted(maps.Keys(want)))
			}
			for name, spoil := range l.faults(proxy.Down(), places) {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					l.endures(t, spoil, want)
				})
			}
		})
	}
}

// endures runs an export over a spoilt link, and then over a good one.
func (l link) endures(t *testing.T, spoil func(*wireproxy.Proxy), want map[string]string) {
	t.Helper()
	proxy := wireproxy.Start(t, l.address)
	j := newJob(t, l.file(proxy, impatient))
	spoil(proxy)
	o := j.start("run").wait() // which ends one that hangs
	again := []string{"run"}
	switch o.code {
	case 0:
		if lines := errorLines(o.err); len(lines) > 0 {
			t.Errorf("the run completed, and yet it says %q", lines)
		}
	case 3:
		// A message that never came while all others did: the fault is taken
		// for its own, and it is for the user to have it tried again.
		needs(t, o.err, "dead letter: alice:/INBOX", "each time that it is asked for: ", proxy.Addr, "pipeline failed retry")
		again = append(again, "--retry-failed")
	case 4:
		l.named(t, o, proxy.Addr)
	default:
		t.Errorf("neither complete nor incomplete: %s", o)
	}
	t.Logf("exit code %d after %s over %d connections\n%s", o.code, o.took.Round(time.Millisecond), proxy.Connections(), o.err)
	proxy.Heal()
	j.write(l.file(proxy, ""))
	j.run(0, again...)
	if diff := cmp.Diff(want, exported(t, j, proxy.Addr)); diff != "" {
		t.Errorf("the export isn't as one that was never disturbed (-want +got):\n%s\n%s", diff, o)
	}
	if spools, _ := filepath.Glob(j.path("state", "*spool*")); len(spools) > 0 {
		t.Errorf("spool files are left: %v", spools)
	}
}

// named checks that a run which isn't complete says which account or mailbox
// isn't, what happened, and what to do.
func (l link) named(t *testing.T, o outcome, address string) {
	t.Helper()
	lines := errorLines(o.err)
	if len(lines) == 0 {
		t.Errorf("no failure is named: %s", o)
	}
	for _, line := range lines {
		if !strings.Contains(line, "alice") || !strings.Contains(line, address) {
			t.Errorf("an error names no account or no server: %s", line)
		}
		if strings.Contains(line, "EOF") || strings.Contains(line, "i/o timeout") || strings.Contains(line, "use of closed") {
			t.Errorf("an error is in the words of a library: %s", line)
		}
	}
	if strings.Count(o.err, "\nhint: ") == 0 {
		t.Errorf("nothing says what to do: %s", o)
	}
	needs(t, o.err, "incomplete: run again")
}

// faults are what is done to the link, of which an undisturbed run takes so
// many octets from the server.
func (l link) faults(octets int64, places int) map[string]func(*wireproxy.Proxy) {
	breaks := func(how wireproxy.Way, after int64, first int) func(*wireproxy.Proxy) {
		return func(p *wireproxy.Proxy) {
			p.Break(func(connection int) (int64, wireproxy.Way) {
				if first > 0 && connection > first {
					return -1, how
				}
				return after, how
			})
		}
	}
	all := places > networkPlaces
	out := map[string]func(*wireproxy.Proxy){}
	if all || l.security == "none" {
		out["one octet at a time"] = func(p *wireproxy.Proxy) { p.Singly(true) }
		out["round trips of 20 ms"] = func(p *wireproxy.Proxy) { p.Delay(20 * time.Millisecond) }
		out["silent when connected"] = breaks(wireproxy.Silence, 0, 0)
	}
	if all || l.security == "tls" {
		out["round trips of 300 ms"] = func(p *wireproxy.Proxy) { p.Delay(300 * time.Millisecond) }
		out["silent in mid-transfer"] = breaks(wireproxy.Silence, octets/2, 0)
	}
	if all {
		out["closed when connected"] = func(p *wireproxy.Proxy) { p.Refuse(true) }
		out["silent for a moment"] = func(p *wireproxy.Proxy) {
			p.Stall(true)
			time.AfterFunc(time.Second, func() { p.Stall(false) })
		}
	}
	if l.security != "none" {
		// 600 octets are a greeting and a part of the server's certificate.
		out["reset in the TLS handshake"] = breaks(wireproxy.Reset, 600, 0)
		if all || l.security == "starttls" {
			out["silent in the TLS handshake"] = breaks(wireproxy.Silence, 600, 0)
		}
		if all {
			out["reset in the first TLS handshake"] = breaks(wireproxy.Reset, 600, 1)
		}
	}
	if l.security == "starttls" {
		return out // once it is on, it is as TLS from the first octet
	}
	for i := range int64(places) {
		// Not at round places: those are a literal's pieces.
		after := 1 + octets*(2*i+1)/int64(2*places)
		out[fmt.Sprintf("each cut after %d octets", after)] = breaks(wireproxy.Close, after, 0)
		out[fmt.Sprintf("the first two reset after %d octets", after)] = breaks(wireproxy.Reset, after, 2)
	}
	return out
}
