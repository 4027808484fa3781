package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// What many accounts are held to.
const (
	accountRSS    = 250 << 20 // octets of the host, whatever the number of accounts
	accountLinear = 1.3       // CPU an account at the most, to that at the fewest
	accountLogins = 4         // at the most, an account: its connections
)

// TestAccounts exports more and more accounts of one server with two messages
// in one mailbox each, and shows that time is linear and the host's memory
// bounded. ACCOUNTS is the numbers, smallest first; unset, it is a guard: few
// accounts, of which the logins are counted.
func TestAccounts(t *testing.T) {
	sizes, full := []int{5, 20}, false
	if list := os.Getenv("ACCOUNTS"); list != "" {
		sizes, full = nil, true
		for _, s := range strings.Fields(list) {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, n)
		}
	}
	bin := build(t, "./cmd/pipeline", "./plugins/pipeline-source-imap", "./plugins/pipeline-sink-eml")
	users := make([]string, sizes[len(sizes)-1])
	for i := range users {
		users[i] = fmt.Sprintf("user%04d", i)
	}
	server := dovecot.Start(t, dovecot.Options{Users: users, Extra: "service imap-login {\n  client_limit = 1000\n}\n"})
	date := time.Date(2024, 1, 1, 10, 0, 0, 0, time.UTC)
	for _, user := range users {
		for k := range 2 {
			raw := fmt.Appendf(nil, "From: a@example.com\nSubject: %d\nMessage-ID: <%d.%s@example.com>\n\n%s", k, k, user, bytes.Repeat([]byte("some text of a letter\n"), 40))
			server.Deliver(user, "INBOX", raw, date)
		}
	}
	t.Logf("| accounts | wall, s | CPU, s | CPU an account, µs | host's peak RSS, MiB | all processes, MiB | logins an account | nothing new: s (CPU) | logins an account |")
	t.Logf("|---|---|---|---|---|---|---|---|---|")
	var first float64
	for _, n := range sizes {
		a := manyAccounts(t, bin, server, users[:n])
		each := a.first.CPU.Seconds() * 1e6 / float64(n)
		logins, again := float64(a.logins)/float64(n), float64(a.againLogins)/float64(n)
		t.Logf("| %d | %.1f | %.1f | %.0f | %d | %d | %.2f | %.2f (%.2f) | %.2f |", n, a.first.Wall.Seconds(), a.first.CPU.Seconds(), each,
			a.host>>20, a.first.RSS>>20, logins, a.again.Wall.Seconds(), a.again.CPU.Seconds(), again)
		if logins > accountLogins || again > 1 {
			t.Errorf("%d accounts: %.2f logins each, and %.2f with nothing new; want at most %d and 1", n, logins, again, accountLogins)
		}
		if !full {
			continue
		}
		if a.host > accountRSS {
			t.Errorf("%d accounts: the host took %d MiB, want at most %d", n, a.host>>20, accountRSS>>20)
		}
		if first == 0 {
			first = each
		}
		if each > accountLinear*first {
			t.Errorf("%d accounts: %.0f µs of CPU each, %.1f × what %d took", n, each, each/first, sizes[0])
		}
	}
}

// accounts is what a run over many accounts took, and a second one after it.
type accounts struct {
	first, again        Run
	host                int64 // octets: the host's own peak
	logins, againLogins int64
}

func manyAccounts(t *testing.T, bin string, server *dovecot.Server, users []string) (a accounts) {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("BENCH_OUT"), "accounts")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	wire := wireproxy.Start(t, server.IMAP)
	var logins atomic.Int64
	wire.Tap(func(fromServer bool, p []byte) {
		if !fromServer {
			logins.Add(int64(bytes.Count(p, []byte(" AUTHENTICATE "))))
		}
	})
	file := filepath.Join(dir, "pipeline.yaml")
	yaml := fmt.Sprintf("version: 1\nname: accounts\nstate: state\nsources:\n  - name: ${row:user}\n    foreach: {csv: accounts.csv}\n    plugin: imap\n    config: {address: %q, security: none, username: \"${row:user}\", password: %s}\nsinks:\n  - %s\n",
		wire.Addr, dovecot.Password, eml)
	table := "user\n" + strings.Join(users, "\n") + "\n"
	for name, text := range map[string]string{file: yaml, filepath.Join(dir, "accounts.csv"): table} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	once := func() (Run, int64, int64) {
		logins.Store(0)
		cmd := exec.Command(filepath.Join(bin, "pipeline"), "run", "--quiet", "-c", file)
		ended, peak := make(chan struct{}), make(chan int64, 1)
		go func() { peak <- highest(cmd, ended) }()
		run, err := measure(cmd, os.Getpid())
		close(ended)
		host := <-peak
		if err != nil {
			t.Fatal(err)
		}
		return run, logins.Load(), host
	}
	a.first, a.logins, a.host = once()
	a.again, a.againLogins, _ = once()
	if got := messagesIn(t, filepath.Join(dir, "out")); got != 2*len(users) {
		t.Fatalf("%d messages were written, want %d", got, 2*len(users))
	}
	return a
}
