// Package popsource is the POP3 source: it lists what is in a maildrop and
// fetches messages, over as many sessions as the user and the server allow.
// It reads only: no DELE, and sessions end by hanging up, not by QUIT, unless
// the user says so (I7).
package popsource

import (
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-pop3/internal/popconn"
)

// Config is the source's block in the file.
type Config struct {
	mailnet.Account

	Connections int    `json:"connections" min:"1" max:"32" default:"1" doc:"most sessions at once; many servers lock the mailbox to one: then it goes on with one, and says so"`
	Identity    string `json:"identity" enum:"uidl,headers" default:"uidl" doc:"how a message is known again: uidl: by the server's unique id; headers: by the sha256 of its header, for servers that change their unique ids, as Exchange does when it moves a mailbox. It costs a TOP for each message"`
	Select      Select `json:"select" doc:"only these messages"`
	Recent      bool   `json:"recent" doc:"Gmail: the mail of the last 30 days, whether it was popped before or not"`
	Advance     bool   `json:"advance" doc:"end a session with QUIT when all that was fetched in it is exported: Gmail then counts it as popped, and lists the next messages; other servers may mark it as read. Without it nothing changes on the server"`
}

// Select picks messages. Where both are set a message must be in both.
type Select struct {
	UIDLs    []string `json:"uidls" doc:"unique ids, as the server has them"`
	Sequence string   `json:"sequence" doc:"a set of message numbers, turned into ids when the session begins; * is the last" example:"1:50,100:*"`
}

// Validate says what the tags can't, and fills in what the provider sets.
func (c *Config) Validate() error {
	granted, err := c.Complete(mailnet.POP3)
	if err != nil {
		return err
	}
	if granted > 0 {
		c.Connections = min(c.Connections, granted)
	}
	if _, ok := parseRanges(c.Select.Sequence); !ok {
		return fault.New(fault.Config, "%q is no set of numbers", c.Select.Sequence).
			WithHint("write it as 1:50,100:*").WithKey("select.sequence")
	}
	return nil
}

func (c *Config) settings(tokens *mailnet.Tokens) *popconn.Settings {
	cred := c.Credentials(mailnet.POP3, tokens)
	if c.Recent {
		cred.Username = "recent:" + c.Username
	}
	return &popconn.Settings{Dialer: c.Dialer(mailnet.POP3), Credentials: cred, Pace: c.Pace()}
}
