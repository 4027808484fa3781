package bench

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// What a run over a long line is held to.
const (
	lineRatio = 1.3  // to the ideal
	lineRate  = 50e6 // bits a second
)

// leastTrips is how many round trips any client needs that asks one thing
// after the other: connect, greeting, login; for IMAP the list of mailboxes,
// EXAMINE, SEARCH, FETCH; for POP3 the capabilities, a password after the
// name, UIDL and LIST together, RETR.
var leastTrips = map[string]int{"imap": 7, "pop3": 7}

// mostTrips is how many round trips follow one another on a single connection
// in a run over little mail, and in one that finds nothing new: a guard that
// doesn't hang on how fast the machine is. IMAP: connect, greeting, AUTHENTICATE,
// CAPABILITY with ID, LIST with NAMESPACE, EXAMINE with SEARCH, EXAMINE, FETCH,
// LOGOUT. POP3: connect, greeting, CAPA, AUTH, STAT with LIST and UIDL, RETR,
// LAST, RSET.
var mostTrips = map[string]struct{ first, again int }{"imap": {9, 6}, "pop3": {8, 5}}

// TestLatency exports over a line of 50 Mbit/s with long round trips, with the
// connections that a file without a word about them gets, and holds the time
// against the ideal: octets ÷ bandwidth, and the round trips that are needed
// in any case. LATENCY is the round trips. Unset, it is a guard: over little
// mail it counts the round trips that follow one another.
func TestLatency(t *testing.T) {
	trips, rounds := []time.Duration{20 * time.Millisecond}, 1
	part := map[string]float64{"small": 0.01}
	list := os.Getenv("LATENCY")
	full := list != ""
	if full {
		trips, part = nil, map[string]float64{"small": 0.5, "mixed": 0.1, "big": 0.07}
		for _, s := range strings.Fields(list) {
			d, err := time.ParseDuration(s)
			if err != nil {
				t.Fatal(err)
			}
			trips = append(trips, d)
		}
		if n, err := strconv.Atoi(os.Getenv("BENCH_ROUNDS")); err == nil && n > 0 {
			rounds = n
		}
	}
	only := regexp.MustCompile(os.Getenv("BENCH_ONLY"))
	var users []string
	workloads := map[string]Workload{}
	for name, part := range part {
		for _, w := range Workloads(part) {
			if w.Name == name {
				workloads[name] = w
				users = append(users, name)
			}
		}
	}
	server := dovecot.Start(t, dovecot.Options{Users: users})
	for name, w := range workloads {
		w.Deliver(func(mailbox string, raw []byte, date time.Time) { server.Deliver(name, mailbox, raw, date) })
	}
	bin := build(t, "./cmd/pipeline", "./plugins/pipeline-source-imap", "./plugins/pipeline-source-pop3", "./plugins/pipeline-sink-eml")
	t.Logf("| round trip | | ideal, s | ours, s | ÷ ideal | round trips | nothing new: s | round trips |")
	t.Logf("|---|---|---|---|---|---|---|---|")
	for _, trip := range trips {
		for _, protocol := range []string{"imap", "pop3"} {
			for _, name := range slices.Sorted(maps.Keys(workloads)) {
				for range rounds {
					if !only.MatchString(protocol + ", " + name) {
						continue
					}
					config := ""
					if !full {
						config = ", connections: 1" // with several, who comes late adds to the chain
					}
					l := overLine(t, bin, server, protocol, config, workloads[name], wireproxy.Line{RoundTrip: trip, Octets: lineRate / 8})
					ideal := time.Duration(float64(l.octets)/(lineRate/8)*float64(time.Second)) + time.Duration(leastTrips[protocol])*trip
					ratio := l.first.Wall.Seconds() / ideal.Seconds()
					t.Logf("| %s | %s, %s | %.2f | %.2f | %.2f | %d | %.2f | %d |", trip, protocol, name, ideal.Seconds(), l.first.Wall.Seconds(), ratio, l.trips, l.again.Wall.Seconds(), l.againTrips)
					if full && ratio > lineRatio {
						t.Errorf("%s, %s, %s: %.2f × the ideal, want at most %.1f", trip, protocol, name, ratio, lineRatio)
					}
					if most := mostTrips[protocol]; !full && (l.trips > most.first || l.againTrips > most.again) {
						t.Errorf("%s: %d round trips, and %d with nothing new; want at most %d and %d: find out what waits for an answer that needn't",
							protocol, l.trips, l.againTrips, most.first, most.again)
					}
				}
			}
		}
	}
}

// lined is what a run over a line took, and the one after it.
type lined struct {
	first, again      Run
	octets            int64 // that the server sent in the first
	trips, againTrips int
}

func overLine(t *testing.T, bin string, server *dovecot.Server, protocol, config string, w Workload, line wireproxy.Line) (l lined) {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("BENCH_OUT"), "line")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	target, files := server.IMAP, all(w)
	if protocol == "pop3" {
		target, files = server.POP3, inbox(w)
	}
	once := func() (Run, *wireproxy.Proxy) {
		wire := wireproxy.Start(t, target)
		wire.Over(line)
		file := filepath.Join(dir, "pipeline.yaml")
		yaml := fmt.Sprintf("version: 1\nname: line\nstate: state\nsources:\n  - {name: it, plugin: %s, config: {address: %q, security: none, username: %s, password: %s%s}}\nsinks:\n  - %s\n",
			protocol, wire.Addr, w.Name, dovecot.Password, config, eml)
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		run, err := measure(exec.Command(filepath.Join(bin, "pipeline"), "run", "--quiet", "-c", file), os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return run, wire
	}
	var wire *wireproxy.Proxy
	l.first, wire = once()
	l.octets, l.trips = wire.Down(), wire.Trips()
	l.again, wire = once()
	l.againTrips = wire.Trips()
	if got := messagesIn(t, filepath.Join(dir, "out")); got != files {
		t.Fatalf("%d messages were written, want %d", got, files)
	}
	return l
}
