package imapsource

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/imapscript"
)

func TestSelect(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	for i := range 20 {
		d.Deliver("alice", "INBOX", sampleMail(i+1), sampleDate.AddDate(0, 0, i))
	}
	d.Doveadm("expunge", "-u", "alice", "mailbox", "INBOX", "uid", "1:5") // UIDs are 6 to 20, numbers 1 to 15
	for _, tt := range []struct {
		name string
		with func(c *Config)
		want string
	}{
		{"uids", func(c *Config) { c.Select.UIDs = "1:7,9,18:*" }, "6 7 9 18 19 20"},
		{"a star beyond the last", func(c *Config) { c.Select.UIDs = "400:*" }, "20"},
		{"numbers", func(c *Config) { c.Select.Sequence = "1:2,15" }, "6 7 20"},
		{"numbers beyond the last", func(c *Config) { c.Select.Sequence = "14:50,99" }, "19 20"},
		{"all numbers beyond the last", func(c *Config) { c.Select.Sequence = "50:60" }, ""},
		{"both", func(c *Config) { c.Select.Sequence, c.Select.UIDs = "1:3", "8:9" }, "8"},
		{"a search", func(c *Config) { c.Search = `SUBJECT "number 1" NOT UID 11` }, "10 12 13 14 15 16 17 18 19"},
		{"a search and uids", func(c *Config) { c.Search, c.Select.UIDs = "SINCE 15-Mar-2020", "1:19" }, "16 17 18 19"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := plainConfig(d.IMAP)
			tt.with(&c)
			var got []string
			for _, sum := range list(t, openSource(t, c), source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize}) {
				got = append(got, fmt.Sprint(sum.ID.UID))
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("UIDs are %v, want %s", got, tt.want)
			}
		})
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	t.Parallel()
	for key, with := range map[string]func(*Config){
		"select.uids":      func(c *Config) { c.Select.UIDs = "1:x" },
		"select.sequence":  func(c *Config) { c.Select.Sequence = "0" },
		"search":           func(c *Config) { c.Search = "ALL\r\nx DELETE INBOX" },
		"extra_fields":     func(c *Config) { c.ExtraFields = []string{"BODY[]"} }, // it would set \Seen (I7)
		"address":          func(c *Config) { c.Address = "" },
		"oauth2.client_id": func(c *Config) { c.OAuth2.TokenStore = spec.Plain("x") },
		"password":         func(c *Config) { c.Provider = "microsoft365" },
	} {
		c := plainConfig("localhost:143")
		with(&c)
		if err := c.Validate(); !fault.Is(err, fault.Config) || fault.As(err).Key != key {
			t.Errorf("%s: %+v", key, err)
		}
	}
}

func TestExtraFieldsAndGmail(t *testing.T) {
	t.Parallel()
	box := inbox(2)
	for i := range box.Messages {
		box.Messages[i].Extra = map[string]string{
			"X-GM-MSGID": fmt.Sprint(1278455344230334865 + i), "X-GM-THRID": "1266894439832287888",
			"X-GM-LABELS": `(\Inbox "&BB4EQgQ,BEAEMAQyBDsENQQ9BD0ESwQ1-" plain)`, "THREADID": "(T64b478a75b7ea9)",
		}
	}
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 X-GM-EXT-1", Mailboxes: []imapscript.Mailbox{box},
		// Gmail sends its own items first, and UID somewhere behind.
		Fetch: func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool {
			var own string
			for _, name := range []string{"X-GM-THRID", "X-GM-MSGID", "X-GM-LABELS"} {
				if v, ok := m.Item(name); ok && strings.Contains(items, name) {
					own += v + " "
				}
			}
			rest := strings.NewReplacer("X-GM-THRID", "", "X-GM-MSGID", "", "X-GM-LABELS", "").Replace(items)
			c.Write("* %d FETCH (%s%s)\r\n", seq, own, m.Items(rest))
			return true
		}})
	c := plainConfig(server.Addr)
	c.ExtraFields = []string{"THREADID"}
	s := openSource(t, c)
	sums := list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: message.NeedGmail | message.NeedFlags})
	if len(sums) != 2 {
		t.Fatalf("%d messages", len(sums))
	}
	got := sums[1]
	if got.Gmail == nil || got.Gmail.MessageID != 1278455344230334866 || got.Gmail.ThreadID != 1266894439832287888 || got.ObjectID != "1278455344230334866" {
		t.Errorf("%+v %q", got.Gmail, got.ObjectID)
	}
	if fmt.Sprint(got.Labels) != `[\Inbox plain Отправленные]` {
		t.Errorf("labels %q", got.Labels)
	}
	if got.Extra["THREADID"] != "(T64b478a75b7ea9)" {
		t.Errorf("extra %q", got.Extra)
	}
	a := fetch(t.Context(), t, s, "INBOX", message.NeedGmail|message.NeedFlags, idsOf(sums), 10)
	if len(a.octets) != 2 {
		t.Errorf("%d bodies: %v %v", len(a.octets), a.err, a.errs)
	}
}
