package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// Tool is a program in one way of using it.
type Tool struct {
	Name  string
	Needs string             // the executable; not installed: the tool is left out, and the table says so
	Slow  bool               // only where rounds are asked for; that it fails is told in the table
	Again bool               // a second run after a first one is what is timed
	Files func(Workload) int // how many messages lie in files afterwards; nil: not one each

	// Command writes what config the program needs below dir, and returns the
	// command that exports to dir/out. It may be called twice for one dir.
	Command func(b bed, dir string) (*exec.Cmd, error)
}

// bed is what all programs of one table are run on.
type bed struct {
	bin    string // our executables
	server *dovecot.Server
	user   string
	tls    bool
}

// Table is programs side by side on one mailbox. The first is ours, and the
// others are what it is held against.
type Table struct {
	Name     string
	Workload string
	TLS      bool
	Tools    []Tool
}

// Tables returns all that is measured.
func Tables() []Table {
	var out []Table
	for _, w := range []string{"small", "mixed", "big"} {
		for _, t := range []bool{false, true} {
			table := Table{"IMAP, " + w, w, t, []Tool{
				ours("imap", 2, eml), drain("imap", 1, true), drain("imap", 2, false), mbsync(false), mbsync(true),
			}}
			if t {
				table.Name += ", TLS"
			} else {
				table.Tools = append(table.Tools, offlineimap(), getmail("imap"), fetchmail("imap"))
			}
			out = append(out, table)
		}
	}
	out = append(out,
		Table{"IMAP, small, nothing new", "small", false, []Tool{again(ours("imap", 2, eml)), again(mbsync(false)), again(offlineimap()), again(getmail("imap"))}},
		Table{"IMAP, small, index only (headers)", "small", false, []Tool{ours("imap", 2, index), headers(2)}})
	for _, w := range []string{"small", "mixed", "big"} {
		for _, t := range []bool{false, true} {
			table := Table{"POP3, " + w, w, t, []Tool{
				ours("pop3", 2, eml), drain("pop3", 1, true), drain("pop3", 2, false), mpop(),
			}}
			if t {
				table.Name += ", TLS"
			} else {
				table.Tools = append(table.Tools, getmail("pop3"), fetchmail("pop3"))
			}
			out = append(out, table)
		}
	}
	return append(out, Table{"POP3, small, nothing new", "small", false, []Tool{again(ours("pop3", 2, eml)), again(mpop()), again(getmail("pop3"))}})
}

func all(w Workload) int {
	n := 0
	for _, m := range w.Mailboxes {
		n += m.Messages
	}
	return n
}

// inbox is what POP3 shows.
func inbox(w Workload) int { return w.Mailboxes[0].Messages }

// The sinks of our own runs.
const (
	eml   = "{name: eml, plugin: eml, config: {path: out}}"
	index = "{name: index, plugin: json, config: {path: out/index.jsonl, detail: headers}}"
)

func ours(protocol string, connections int, sink string) Tool {
	files := all
	switch {
	case sink == index:
		files = nil
	case protocol == "pop3":
		files = inbox
	}
	return Tool{Name: "ours", Needs: "go", Files: files, Command: func(b bed, dir string) (*exec.Cmd, error) {
		at, security := b.server.IMAP, "none"
		switch {
		case protocol == "pop3" && b.tls:
			at, security = b.server.POP3S, "tls"
		case protocol == "pop3":
			at = b.server.POP3
		case b.tls:
			at, security = b.server.IMAPS, "tls"
		}
		tls := ""
		if b.tls {
			tls = fmt.Sprintf(", tls: {ca_file: %q}", b.server.CAFile)
		}
		yaml := fmt.Sprintf(`version: 1
name: bench
state: state
sources:
  - name: it
    plugin: %s
    config: {address: %q, security: %s, username: %s, password: %s, connections: %d%s}
sinks:
  - %s
`, protocol, at, security, b.user, dovecot.Password, connections, tls, sink)
		if err := os.MkdirAll(filepath.Join(dir, "out"), 0o700); err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "pipeline.yaml")
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			return nil, err
		}
		return exec.Command(filepath.Join(b.bin, "pipeline"), "run", "--quiet", "-c", file), nil
	}}
}

func drain(protocol string, connections int, files bool) Tool {
	name := fmt.Sprintf("drain, %d connection(s), thrown away", connections)
	var count func(Workload) int
	if files {
		name = fmt.Sprintf("drain, %d connection(s), to files, one flush", connections)
		if count = all; protocol == "pop3" {
			count = inbox
		}
	}
	return Tool{Name: name, Needs: "go", Files: count, Command: func(b bed, dir string) (*exec.Cmd, error) {
		at := map[string]string{"imap": b.server.IMAP, "pop3": b.server.POP3}[protocol]
		if b.tls {
			at = map[string]string{"imap": b.server.IMAPS, "pop3": b.server.POP3S}[protocol]
		}
		args := []string{"-" + protocol, at, "-user", b.user, "-password", dovecot.Password, fmt.Sprintf("-connections=%d", connections), fmt.Sprintf("-tls=%t", b.tls)}
		if files {
			out := filepath.Join(dir, "out")
			if err := os.MkdirAll(out, 0o700); err != nil {
				return nil, err
			}
			args = append(args, "-out", out)
		}
		return exec.Command(filepath.Join(b.bin, "drain"), args...), nil
	}}
}

func headers(connections int) Tool {
	t := drain("imap", connections, false)
	t.Name = fmt.Sprintf("drain, %d connection(s), headers", connections)
	whole := t.Command
	t.Command = func(b bed, dir string) (*exec.Cmd, error) {
		cmd, err := whole(b, dir)
		if err == nil {
			cmd.Args = append(cmd.Args, "-headers")
		}
		return cmd, err
	}
	return t
}

// again times a second run, when there is nothing new.
func again(t Tool) Tool {
	t.Again = true
	return t
}

func mbsync(fsync bool) Tool {
	yes := map[bool]string{true: "yes", false: "no"}[fsync]
	return Tool{Name: "mbsync, fsync " + yes, Needs: "mbsync", Files: all, Command: func(b bed, dir string) (*exec.Cmd, error) {
		host, at, security := "127.0.0.1", b.server.IMAP, "SSLType None"
		if b.tls {
			host, at, security = "localhost", b.server.IMAPS, "SSLType IMAPS\nCertificateFile "+b.server.CAFile
		}
		// COMPRESS=DEFLATE, which mbsync takes where it is offered, isn't
		// offered here.
		rc := fmt.Sprintf(`FSync %s

IMAPAccount it
Host %s
Port %s
User %s
Pass %s
AuthMechs LOGIN
%s

IMAPStore far
Account it

MaildirStore near
Path %[7]s/
Inbox %[7]s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Near
Sync Pull
CopyArrivalDate yes
SyncState *
`, yes, host, port(at), b.user, dovecot.Password, security, filepath.Join(dir, "out"))
		if err := os.MkdirAll(filepath.Join(dir, "out"), 0o700); err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "mbsyncrc")
		if err := os.WriteFile(file, []byte(rc), 0o600); err != nil {
			return nil, err
		}
		return exec.Command("mbsync", "-q", "-c", file, "-a"), nil
	}}
}

func mpop() Tool {
	return Tool{Name: "mpop", Needs: "mpop", Files: inbox, Command: func(b bed, dir string) (*exec.Cmd, error) {
		out := filepath.Join(dir, "out")
		for _, d := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(out, d), 0o700); err != nil {
				return nil, err
			}
		}
		host, at, tls := "127.0.0.1", b.server.POP3, "tls off"
		if b.tls {
			host, at, tls = "localhost", b.server.POP3S, "tls on\ntls_starttls off\ntls_trust_file "+b.server.CAFile
		}
		rc := fmt.Sprintf(`account it
host %s
port %s
user %s
password %s
auth user
%s
keep on
delivery maildir %s
uidls_file %s
`, host, port(at), b.user, dovecot.Password, tls, out, filepath.Join(dir, "uidls"))
		file := filepath.Join(dir, "mpoprc")
		if err := os.WriteFile(file, []byte(rc), 0o600); err != nil {
			return nil, err
		}
		return exec.Command("mpop", "-Q", "-C", file, "it"), nil
	}}
}

// port is the port of host:port.
func port(at string) string { return at[strings.LastIndexByte(at, ':')+1:] }
