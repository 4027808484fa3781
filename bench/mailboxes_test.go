package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// What many mailboxes are held to.
const (
	mailboxRSS      = 250 << 20 // octets of all processes, whatever the number of mailboxes
	mailboxLinear   = 1.3       // CPU a mailbox at the most, to that at the fewest
	mailboxCommands = 4.2       // a mailbox: EXAMINE and SEARCH to list, EXAMINE and FETCH
	mailboxAgain    = 10        // commands of a run with nothing new, logins and all
)

// TestMailboxes exports accounts of more and more mailboxes with two messages
// each, and shows that time is linear and memory bounded, and that a run with
// nothing new asks for all states at once. MAILBOXES is the numbers, smallest
// first; unset, it is a guard: few mailboxes, of which commands are counted.
func TestMailboxes(t *testing.T) {
	sizes, full := sizesOf(t, "MAILBOXES", 10, 40)
	bin := build(t, "./cmd/pipeline", "./plugins/pipeline-source-imap", "./plugins/pipeline-sink-eml")
	var users []string
	for _, n := range sizes {
		users = append(users, fmt.Sprintf("with%d", n))
	}
	server := dovecot.Start(t, dovecot.Options{Users: users})
	date := time.Date(2024, 1, 1, 10, 0, 0, 0, time.UTC)
	for i, n := range sizes {
		for m := range n {
			for k := range 2 {
				raw := fmt.Appendf(nil, "From: a@example.com\nSubject: %d of %d\nMessage-ID: <%d.%d@example.com>\n\n%s", k, m, m, k, bytes.Repeat([]byte("some text of a letter\n"), 40))
				server.Deliver(users[i], fmt.Sprintf("Projects/%02d/Folder %04d", m%50, m), raw, date)
			}
		}
	}
	t.Logf("| mailboxes | wall, s | CPU, s | CPU a mailbox, µs | all processes, MiB | commands a mailbox | nothing new: s (CPU) | commands |")
	t.Logf("|---|---|---|---|---|---|---|---|")
	var first float64
	for i, n := range sizes {
		m := manyMailboxes(t, bin, server, users[i], 2*n)
		each, commands := m.first.CPU.Seconds()*1e6/float64(n), float64(m.commands)/float64(n)
		t.Logf("| %d | %.1f | %.1f | %.0f | %d | %.2f | %.2f (%.2f) | %d |", n, m.first.Wall.Seconds(), m.first.CPU.Seconds(), each,
			m.first.RSS>>20, commands, m.again.Wall.Seconds(), m.again.CPU.Seconds(), m.againCommands)
		if m.againCommands > mailboxAgain {
			t.Errorf("%d mailboxes: %d commands in a run with nothing new, want at most %d", n, m.againCommands, mailboxAgain)
		}
		// A few commands are for the account, and those of four connections.
		if most := mailboxCommands + 60/float64(n); commands > most {
			t.Errorf("%d mailboxes: %.2f commands each, want at most %.2f", n, commands, most)
		}
		if !full {
			continue
		}
		if m.first.RSS > mailboxRSS {
			t.Errorf("%d mailboxes: all processes took %d MiB, want at most %d", n, m.first.RSS>>20, mailboxRSS>>20)
		}
		if first == 0 {
			first = each
		}
		if each > mailboxLinear*first {
			t.Errorf("%d mailboxes: %.0f µs of CPU each, %.1f × what %d took", n, each, each/first, sizes[0])
		}
	}
}

// many is what an account of many mailboxes took, and a second run after it.
type many struct {
	first, again            Run
	commands, againCommands int64
}

func manyMailboxes(t *testing.T, bin string, server *dovecot.Server, user string, files int) (m many) {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("BENCH_OUT"), "boxes")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	wire := wireproxy.Start(t, server.IMAP)
	var commands atomic.Int64
	wire.Tap(func(fromServer bool, p []byte) {
		if !fromServer {
			commands.Add(int64(bytes.Count(p, []byte("\n"))))
		}
	})
	file := filepath.Join(dir, "pipeline.yaml")
	yaml := fmt.Sprintf("version: 1\nname: boxes\nstate: state\nsources:\n  - {name: it, plugin: imap, config: {address: %q, security: none, username: %s, password: %s}}\nsinks:\n  - %s\n",
		wire.Addr, user, dovecot.Password, eml)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	once := func() (Run, int64) {
		commands.Store(0)
		run, err := measure(exec.Command(filepath.Join(bin, "pipeline"), "run", "--quiet", "-c", file), os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return run, commands.Load()
	}
	m.first, m.commands = once()
	m.again, m.againCommands = once()
	if got := messagesIn(t, filepath.Join(dir, "out")); got != files {
		t.Fatalf("%d messages were written, want %d", got, files)
	}
	return m
}
