package imapsource

import (
	"slices"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/imapscript"
)

func TestPasswordsOfAnyCharacters(t *testing.T) {
	t.Parallel()
	const password = "pä\"ss\\w{3}örd"
	for _, caps := range []string{"IMAP4rev1", "IMAP4rev1 LITERAL+", "IMAP4rev1 LITERAL-"} {
		t.Run(caps, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, imapscript.Script{Capabilities: caps, Mailboxes: []imapscript.Mailbox{inbox(1)}})
			c := plainConfig(server.Addr)
			c.Password = spec.Plain(password)
			list(t, openSource(t, c), source.ListRequest{Mailbox: "INBOX"})
			if want := `LOGIN "alice" "` + password + `"`; !slices.Contains(server.Commands(), want) {
				t.Errorf("the server got %q, want %q", server.Commands(), want)
			}
		})
	}
}

func TestLoginIsDisabled(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 LOGINDISABLED"})
	_, err := openWith(t, plainConfig(server.Addr), source.Env{})
	if f := fault.As(err); f == nil || f.Class != fault.Config || f.Key != "security" {
		t.Errorf("%+v, want a fault of the config's security", f)
	}
	for _, c := range server.Commands() {
		if c != "CAPABILITY" {
			t.Errorf("the source sent %.8q…", c)
		}
	}
}

func TestGreetings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, greeting string
		class          fault.Class
	}{
		{"PREAUTH", "* PREAUTH [CAPABILITY IMAP4rev1] you are alice", fault.Unknown},
		{"capabilities in the greeting", "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hello", fault.Unknown},
		{"BYE", "* BYE down for maintenance", fault.Unavailable},
		{"BYE, too many", "* BYE [ALERT] Too many connections from your address", fault.Throttled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, imapscript.Script{Greeting: tt.greeting, Mailboxes: []imapscript.Mailbox{inbox(1)}})
			o, err := openWith(t, plainConfig(server.Addr), source.Env{})
			if fault.Of(err) != tt.class || (err == nil) != (tt.class == fault.Unknown) {
				t.Fatalf("%v, want class %s", err, tt.class)
			}
			if err == nil {
				defer o.Source.Close()
				if got := list(t, o.Source.(*Source), source.ListRequest{Mailbox: "INBOX"}); len(got) != 1 {
					t.Errorf("%d messages, want 1", len(got))
				}
			}
		})
	}
}
