package bench

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// offlineimap mirrors all mailboxes into Maildirs, with two connections and
// without fsync.
func offlineimap() Tool {
	return Tool{Slow: true, Name: "offlineimap, fsync no", Needs: "offlineimap", Files: all, Command: func(b bed, dir string) (*exec.Cmd, error) {
		rc := fmt.Sprintf(`[general]
accounts = it
metadata = %[1]s/meta
fsync = False
[Account it]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = %[1]s/out
[Repository far]
type = IMAP
remotehost = 127.0.0.1
remoteport = %[2]s
remoteuser = %[3]s
remotepass = %[4]s
ssl = no
starttls = no
maxconnections = 2
readonly = True
`, dir, port(b.server.IMAP), b.user, dovecot.Password)
		return with(dir, "offlineimaprc", rc, "offlineimap", "-o", "-u", "quiet", "-c")
	}}
}

// getmail fetches what it hasn't fetched before, into one Maildir.
func getmail(protocol string) Tool {
	files := all
	if protocol == "pop3" {
		files = inbox
	}
	return Tool{Slow: true, Name: "getmail6", Needs: "getmail", Files: files, Command: func(b bed, dir string) (*exec.Cmd, error) {
		for _, d := range []string{"", "cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(dir, "out", d), 0o700); err != nil {
				return nil, err
			}
		}
		deliverer, err := unprivileged(dir)
		if err != nil {
			return nil, err
		}
		retriever := "SimplePOP3Retriever\nport = " + port(b.server.POP3)
		if protocol == "imap" {
			retriever = "SimpleIMAPRetriever\nmailboxes = ALL\nport = " + port(b.server.IMAP)
		}
		rc := fmt.Sprintf(`[retriever]
type = %s
server = 127.0.0.1
username = %s
password = %s
[destination]
type = Maildir
path = %s/out/
%s
[options]
read_all = false
delete = false
verbose = 0
`, retriever, b.user, dovecot.Password, dir, deliverer)
		return with(dir, "getmailrc", rc, "getmail", "--getmaildir", dir, "--rcfile")
	}}
}

// unprivileged gives dir/out to another user, where the benchmark runs as root:
// getmail delivers nothing then. It returns the line that names the user.
func unprivileged(dir string) (string, error) {
	if os.Geteuid() != 0 {
		return "", nil
	}
	u, err := user.Lookup("mail")
	if err != nil {
		return "", err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // that user must come through
		return "", err
	}
	for _, d := range []string{"", "cur", "new", "tmp"} {
		if err := os.Chown(filepath.Join(dir, "out", d), uid, -1); err != nil {
			return "", err
		}
	}
	return "user = " + u.Username, nil
}

// fetchmail writes all messages of the INBOX to one file of SMTP commands:
// what it does without a program for each message.
func fetchmail(protocol string) Tool {
	return Tool{Slow: true, Name: "fetchmail, INBOX into one file", Needs: "fetchmail", Command: func(b bed, dir string) (*exec.Cmd, error) {
		at := map[string]string{"imap": b.server.IMAP, "pop3": b.server.POP3}[protocol]
		rc := fmt.Sprintf("poll 127.0.0.1 proto %s port %s auth password user %q pass %q keep fetchall sslproto \"\" bsmtp \"%s/all\"\n",
			protocol, port(at), b.user, dovecot.Password, dir)
		cmd, err := with(dir, "fetchmailrc", rc, "fetchmail", "-s", "-f")
		if err == nil {
			cmd.Env = append(os.Environ(), "FETCHMAILHOME="+dir)
		}
		return cmd, err
	}}
}

// with writes a program's config below dir and returns the command that ends
// with it.
func with(dir, name, config, program string, args ...string) (*exec.Cmd, error) {
	if err := os.MkdirAll(filepath.Join(dir, "out"), 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return exec.Command(program, append(args, file)...), nil
}
