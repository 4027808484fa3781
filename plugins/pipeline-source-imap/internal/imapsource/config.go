// Package imapsource is the IMAP source: it lists mailboxes and messages and
// fetches bodies, over as many connections as the user and the server allow.
// It reads only: EXAMINE, never SELECT; BODY.PEEK, never BODY (I7).
package imapsource

import (
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// Config is the source's block in the file.
type Config struct {
	mailnet.Account

	Connections int      `json:"connections" min:"1" max:"64" default:"4" doc:"most connections at once; fewer are used when the server grants fewer"`
	Select      Select   `json:"select" doc:"only these messages of each mailbox"`
	Search      string   `json:"search" doc:"only messages that the server's SEARCH finds (RFC 9051 §6.4.4)" example:"SINCE 1-Jan-2024 NOT DELETED"`
	ExtraFields []string `json:"extra_fields" doc:"other FETCH items to list by their names, as the server knows them" example:"[\"THREADID\"]"`
	Gmail       string   `json:"gmail" enum:"once,folders" default:"once" doc:"once: each message once, with its labels, from All Mail, Spam and Trash, or from the mailboxes that are included where All Mail isn't among them; folders: each mailbox as it stands. Servers other than Gmail have no use for it"`
	Place       []string `json:"place" enum:"user,sent,drafts,inbox,archive" default:"user,sent,drafts,inbox,archive" doc:"Gmail, once: the mailbox that a message with several labels is filed under: the first that it has of its own labels (user, by name), sent mail, drafts, INBOX, All Mail (archive)"`
	Compress    string   `json:"compress" enum:"auto,always,never" default:"auto" doc:"COMPRESS=DEFLATE: auto turns it on once a link turned out to carry less than 5 MB a second; on a fast one it makes servers many times slower"`
}

// Select picks messages by number. Both may be set: a message must be in both.
type Select struct {
	UIDs     string `json:"uids" doc:"a set of UIDs" example:"1:100,205,4000:*"`
	Sequence string `json:"sequence" doc:"a set of sequence numbers, turned into UIDs when the mailbox is opened" example:"1:50"`
}

// Validate says what the tags can't, and fills in what the provider sets.
func (c *Config) Validate() error {
	granted, err := c.Complete(mailnet.IMAP)
	if err != nil {
		return err
	}
	if granted > 0 {
		c.Connections = min(c.Connections, granted)
	}
	for key, set := range map[string]string{"select.uids": c.Select.UIDs, "select.sequence": c.Select.Sequence} {
		if _, ok := imapdata.ParseSet(set); set != "" && !ok {
			return fault.New(fault.Config, "%q is no set of numbers", set).WithHint("write it as 1:100,205,4000:*").WithKey(key)
		}
	}
	if strings.ContainsAny(c.Search, "\r\n\x00") {
		return fault.New(fault.Config, "search must be one line").WithKey("search")
	}
	for _, f := range c.ExtraFields {
		if strings.IndexFunc(f, notInItem) >= 0 || f == "" || strings.HasPrefix(strings.ToUpper(f), "BODY[") {
			return fault.New(fault.Config, "%q is no FETCH item that changes nothing on the server", f).WithKey("extra_fields")
		}
	}
	return nil
}

// notInItem reports whether a character has no place in the name of a FETCH
// item. BODY.PEEK[HEADER.FIELDS (X)] has nearly all that may stand there.
func notInItem(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._[]() <>", r))
}

func (c *Config) settings(tokens *mailnet.Tokens) *imapconn.Settings {
	return &imapconn.Settings{Dialer: c.Dialer(mailnet.IMAP), Credentials: c.Credentials(mailnet.IMAP, tokens), Compress: c.Compress, Pace: c.Pace()}
}
