// Package dovecot runs a private Dovecot 2.3 for tests: on loopback, on free
// ports, out of a directory of its own, with mail that the test delivers
// itself. Any number may run at once, as root or not.
package dovecot

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Password is the password of every user.
const Password = "secret"

// Options say how the server is set up. The zero value is one user "alice"
// with an empty INBOX, a Maildir and "/" between levels.
type Options struct {
	Users          []string // default: alice
	Separator      string   // between levels, as clients see it; default "/"
	Format         string   // maildir (default), sdbox or mdbox; Deliver works for maildir only
	ExpiredCert    bool     // the certificate ended yesterday
	NoPlaintext    bool     // refuse LOGIN and PLAIN without TLS
	MaxConnections int      // a user's connections at once, per protocol; 0: 200
	Compress       bool     // offer COMPRESS=DEFLATE
	Extra          string   // lines at the end of dovecot.conf
}

// Server is a running Dovecot. It ends with the test that started it.
type Server struct {
	IMAP, IMAPS string // host:port
	POP3, POP3S string // host:port
	CAFile      string // the authority of the server's certificate, PEM; valid for localhost and 127.0.0.1
	Dir         string // everything is below it

	opts    Options
	format  string
	tb      testing.TB
	uid     int
	gid     int
	mu      sync.Mutex
	serial  int
	folders map[string]string // user and mailbox -> directory
	words   map[string][]string
	stop    func()
}

// Start starts a server and waits until it answers. A missing Dovecot fails
// the test: a test that needs a server is never skipped.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	bin, err := exec.LookPath("dovecot")
	if err != nil {
		bin = "/usr/sbin/dovecot"
	}
	for _, need := range []string{bin, "/usr/lib/dovecot/imap", "/usr/lib/dovecot/pop3"} {
		if _, err := os.Stat(need); err != nil {
			tb.Fatalf("this test needs Dovecot, and %s is missing: apt-get install dovecot-imapd dovecot-pop3d", need)
		}
	}
	if len(o.Users) == 0 {
		o.Users = []string{"alice"}
	}
	if o.Separator == "" {
		o.Separator = "/"
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 200
	}
	// Not TempDir: the path of a unix socket must stay below 108 octets.
	dir, err := os.MkdirTemp("/tmp", "dc")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{Dir: dir, opts: o, format: o.Format, tb: tb, folders: map[string]string{}, words: map[string][]string{}}
	if s.format == "" {
		s.format = "maildir"
	}
	tb.Cleanup(func() {
		if s.stop != nil {
			s.stop()
		}
		os.RemoveAll(dir)
	})
	if err := s.prepare(); err != nil {
		tb.Fatalf("dovecot: prepare %s: %v", dir, err)
	}
	// A port that was free a moment ago may be another test's by now.
	for try := 0; ; try++ {
		err := s.launch(bin)
		if err == nil {
			return s
		}
		if try == 4 {
			tb.Fatalf("dovecot: %v\n%s", err, s.Log())
		}
	}
}

// Stop ends the server before the test does. It may be called twice.
func (s *Server) Stop() {
	if s.stop != nil {
		s.stop()
	}
}

// Restart starts a stopped server again, on the same ports.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	bin, err := exec.LookPath("dovecot")
	if err != nil {
		bin = "/usr/sbin/dovecot"
	}
	if err := s.run(bin); err != nil {
		s.tb.Fatalf("dovecot: restart: %v\n%s", err, s.Log())
	}
}

// Configure adds lines to the end of dovecot.conf and restarts the server.
func (s *Server) Configure(lines string) {
	s.tb.Helper()
	f, err := os.OpenFile(s.conf(), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(lines)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		s.tb.Fatalf("dovecot: configure: %v", err)
	}
	s.Restart()
}

// Log returns what the server wrote to its log.
func (s *Server) Log() string {
	b, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	return string(b)
}

// Doveadm runs doveadm against the server and returns its output.
func (s *Server) Doveadm(args ...string) string {
	s.tb.Helper()
	out, err := exec.Command("doveadm", append([]string{"-c", s.conf()}, args...)...).CombinedOutput()
	if err != nil {
		s.tb.Fatalf("doveadm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *Server) conf() string { return filepath.Join(s.Dir, "dovecot.conf") }

// mailUser returns who owns the mail: Dovecot refuses to serve root's.
func mailUser() (name, group string, uid, gid int, err error) {
	u, err := user.Current()
	if err == nil && os.Getuid() == 0 {
		u, err = user.Lookup("mail")
	}
	if err != nil {
		return "", "", 0, 0, err
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		return "", "", 0, 0, err
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return u.Username, g.Name, uid, gid, nil
}

func (s *Server) prepare() error {
	if err := os.Chmod(s.Dir, 0o755); err != nil {
		return err
	}
	_, _, uid, gid, err := mailUser()
	if err != nil {
		return err
	}
	s.uid, s.gid = uid, gid
	for _, d := range []string{"run", "state", "home"} {
		if err := os.Mkdir(filepath.Join(s.Dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := s.own(filepath.Join(s.Dir, "home")); err != nil {
		return err
	}
	var users strings.Builder
	for _, u := range s.opts.Users {
		fmt.Fprintf(&users, "%s:{PLAIN}%s\n", u, Password)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "users"), []byte(users.String()), 0o644); err != nil {
		return err
	}
	s.CAFile = filepath.Join(s.Dir, "ca.pem")
	return s.certificates()
}

func (s *Server) own(path string) error {
	if os.Getuid() != 0 {
		return nil
	}
	return os.Chown(path, s.uid, s.gid)
}

func (s *Server) launch(bin string) error {
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	for i, at := range []*string{&s.IMAP, &s.IMAPS, &s.POP3, &s.POP3S} {
		*at = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i]))
	}
	if err := s.writeConf(ports); err != nil {
		return err
	}
	return s.run(bin)
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // held until all are known, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func (s *Server) run(bin string) error {
	logf, err := os.OpenFile(filepath.Join(s.Dir, "start.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer logf.Close()
	cmd := exec.Command(bin, "-F", "-c", s.conf())
	cmd.Stdout, cmd.Stderr = logf, logf
	// The server dies with the test process, however that ends. The signal
	// is bound to the thread that starts it, so one thread waits for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				<-ended
			}
		})
	}
	for _, at := range []string{s.IMAP, s.POP3} {
		if err := greeting(at, ended); err != nil {
			s.stop()
			start, _ := os.ReadFile(logf.Name())
			return fmt.Errorf("%w\n%s", err, start)
		}
	}
	return nil
}

// greeting waits until the server at the address says hello.
func greeting(at string, ended <-chan struct{}) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		if c, err := net.DialTimeout("tcp", at, time.Second); err == nil {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			line, err := bufio.NewReader(c).ReadString('\n')
			c.Close()
			if err == nil && (strings.HasPrefix(line, "* OK") || strings.HasPrefix(line, "+OK")) {
				return nil
			}
		}
		select {
		case <-ended:
			return errors.New("it ended at once")
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no greeting from %s", at)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
