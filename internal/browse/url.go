package browse

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Address is what a URL says: an account, a mailbox of it, a message in that
// (RFC 5092, RFC 2384).
type Address struct {
	Plugin   string // the source plugin that speaks the scheme
	Host     string // host, or host:port
	TLS      bool   // from the first octet; else as soon as the server can
	Username string
	Mailbox  string // empty: none named
	UID      uint32 // 0: none named
	UIDL     string // empty: none named
}

var schemes = map[string]Address{
	"imap":  {Plugin: "imap"},
	"imaps": {Plugin: "imap", TLS: true},
	"pop":   {Plugin: "pop3"},
	"pop3":  {Plugin: "pop3"},
	"pops":  {Plugin: "pop3", TLS: true},
	"pop3s": {Plugin: "pop3", TLS: true},
}

// IsURL reports whether a word of the command line is meant as a URL.
func IsURL(word string) bool { return strings.Contains(word, "://") }

// ParseURL reads imaps://user@host:port/mailbox;UIDVALIDITY=1/;UID=5, and
// pops://user@host/;UIDL=x. The user's name may have an @ as it is. A password
// is refused: whoever may list processes reads the command line (I9). The error
// is a fault.Config.
func ParseURL(text string) (Address, error) {
	scheme, rest, _ := strings.Cut(text, "://")
	a, ok := schemes[strings.ToLower(scheme)]
	if !ok {
		f := fault.New(fault.Config, "%s:// is no kind of mailbox", Safe(scheme)).WithHint("use imaps, imap, pops or pop")
		if near := spec.Nearest(scheme, []string{"imap", "imaps", "pop", "pops", "pop3", "pop3s"}); near != "" {
			f.Hint = "did you mean " + near + "://?"
		}
		return a, f
	}
	authority, path, _ := strings.Cut(rest, "/")
	at := strings.LastIndexByte(authority, '@')
	if at < 0 {
		return a, fault.New(fault.Config, "the URL names no user").WithHint("write it as %s://user@%s", scheme, Safe(authority))
	}
	user, host := authority[:at], authority[at+1:]
	user, _, _ = strings.Cut(user, ";") // ;AUTH=*
	if name, _, password := strings.Cut(user, ":"); password {
		return a, fault.New(fault.Config, "the URL has a password in it, which everybody on this machine can read").
			WithHint("write it as %s://%s@%s, and set MAILHAUL_PASSWORD or type it when asked", scheme, Safe(name), Safe(host))
	}
	var err error
	if a.Username, err = url.PathUnescape(user); err != nil || a.Username == "" {
		return a, fault.New(fault.Config, "%q is no user's name in a URL", user).WithHint("write it as %s://user@%s", scheme, Safe(host))
	}
	if a.Host = host; host == "" {
		return a, fault.New(fault.Config, "the URL names no host").WithHint("write it as %s://%s@host", scheme, Safe(user))
	}
	return a, a.path(path)
}

// path reads what stands behind the host.
func (a *Address) path(path string) error {
	mailbox := path
	if i := strings.IndexByte(path, ';'); i >= 0 {
		mailbox = path[:i]
		for word := range strings.SplitSeq(path[i:], ";") {
			key, value, _ := strings.Cut(strings.TrimSuffix(word, "/"), "=")
			value, err := url.PathUnescape(value)
			bad := err != nil
			switch strings.ToUpper(key) {
			case "UID":
				n, err := strconv.ParseUint(value, 10, 32)
				bad = bad || err != nil || n == 0
				a.UID = uint32(n)
			case "UIDL":
				a.UIDL = value
			}
			if bad {
				return fault.New(fault.Config, "%q in the URL is no %s", Safe(value), strings.ToUpper(key)).WithHint("write it as …/INBOX/;UID=5")
			}
		}
	}
	name, err := url.PathUnescape(strings.TrimSuffix(mailbox, "/"))
	if err != nil {
		return fault.New(fault.Config, "%q is no mailbox's name in a URL", Safe(mailbox)).WithHint("write %% as %%25 in it")
	}
	a.Mailbox = name
	return nil
}

// Config returns the address as the config of its plugin. insecure allows what
// the URL's own words don't protect: no TLS, or a certificate that doesn't
// check.
func (a *Address) Config(insecure bool, caFile string) map[string]any {
	c := map[string]any{"address": a.Host, "username": a.Username, "security": "auto"}
	if a.TLS {
		c["security"] = "tls"
	}
	tls := map[string]any{}
	if insecure {
		c["allow_plain"] = true
		tls["insecure_skip_verify"] = true
	}
	if caFile != "" {
		tls["ca_file"] = caFile
	}
	if len(tls) > 0 {
		c["tls"] = tls
	}
	return c
}
