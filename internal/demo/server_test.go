package demo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/mailhaul/pipeline/internal/demo"
)

func start(t *testing.T, opts ...demo.Option) *demo.Server {
	t.Helper()
	s, err := demo.Start(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(t *testing.T, s *demo.Server) *imapclient.Client {
	t.Helper()
	c, err := imapclient.DialInsecure(s.Addr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the server may be gone first
	return c
}

func login(t *testing.T, s *demo.Server) *imapclient.Client {
	t.Helper()
	c := dial(t, s)
	if err := c.Login(demo.User, s.Password()).Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

func mailboxNames(s *demo.Server) []string {
	var names []string
	for _, m := range s.Messages() {
		if !slices.Contains(names, m.Mailbox) {
			names = append(names, m.Mailbox)
		}
	}
	return names
}

// Every octet of every message comes back through an independent client, as
// does all that a listing tells of it.
func TestServesTheSampleExactly(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := login(t, s)
	want := map[string]*demo.Message{}
	for _, m := range s.Messages() {
		want[fmt.Sprint(m.Mailbox, " ", m.UID)] = m
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	header := &imap.FetchItemBodySection{Peek: true, Specifier: imap.PartSpecifierHeader}
	text := &imap.FetchItemBodySection{Peek: true, Specifier: imap.PartSpecifierText}
	for _, name := range mailboxNames(s) {
		if _, err := c.Select(name, &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
			t.Fatalf("EXAMINE %q: %v", name, err)
		}
		got, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{
			UID: true, Flags: true, InternalDate: true, RFC822Size: true, Envelope: true,
			BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
			BodySection:   []*imap.FetchItemBodySection{whole, header, text},
		}).Collect()
		if err != nil {
			t.Fatalf("FETCH in %q: %v", name, err)
		}
		for _, g := range got {
			key := fmt.Sprint(name, " ", g.UID)
			w := want[key]
			if w == nil {
				t.Errorf("%s: not in the sample, or sent twice", key)
				continue
			}
			delete(want, key)
			octets := g.FindBodySection(whole)
			if !bytes.Equal(octets, w.Octets) {
				t.Errorf("%s: BODY[] has %d octets that differ from the %d of the sample", key, len(octets), len(w.Octets))
			}
			if both := append(slices.Clone(g.FindBodySection(header)), g.FindBodySection(text)...); !bytes.Equal(both, w.Octets) {
				t.Errorf("%s: HEADER and TEXT together aren't BODY[]", key)
			}
			if g.RFC822Size != int64(len(w.Octets)) {
				t.Errorf("%s: RFC822.SIZE %d, want %d", key, g.RFC822Size, len(w.Octets))
			}
			if !g.InternalDate.Equal(w.InternalDate) {
				t.Errorf("%s: INTERNALDATE %v, want %v", key, g.InternalDate, w.InternalDate)
			}
			if len(g.Flags) != len(w.Flags) {
				t.Errorf("%s: flags %v, want %v", key, g.Flags, w.Flags)
			}
			if g.BodyStructure == nil || g.Envelope == nil {
				t.Errorf("%s: no BODYSTRUCTURE or no ENVELOPE", key)
			}
		}
	}
	for key := range want {
		t.Errorf("%s: never sent", key)
	}
	if n := s.Changes(); n != 0 {
		t.Errorf("reading counted as %d changes", n)
	}
}

func TestListTellsNamesUsesAndCounts(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := login(t, s)
	list, err := c.List("", "*", &imap.ListOptions{
		ReturnSpecialUse: true,
		ReturnStatus:     &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, Size: true},
	}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	boxes := map[string]*imap.ListData{}
	total, octets := 0, int64(0)
	for _, l := range list {
		boxes[l.Mailbox] = l
		if slices.Contains(l.Attrs, imap.MailboxAttrNoSelect) {
			continue
		}
		if l.Status == nil {
			t.Fatalf("%q: no STATUS", l.Mailbox)
		}
		total += int(*l.Status.NumMessages)
		octets += *l.Status.Size
	}
	wantOctets := int64(0)
	for _, m := range s.Messages() {
		wantOctets += int64(len(m.Octets))
	}
	if total != len(s.Messages()) || octets != wantOctets {
		t.Errorf("STATUS counts %d messages, %d octets; want %d, %d", total, octets, len(s.Messages()), wantOctets)
	}
	for name, attr := range map[string]imap.MailboxAttr{
		"Sent": imap.MailboxAttrSent, "Drafts": imap.MailboxAttrDrafts, "Junk": imap.MailboxAttrJunk,
		"Trash": imap.MailboxAttrTrash, "Archive": imap.MailboxAttrArchive, "Projects": imap.MailboxAttrNoSelect,
		"手紙/灯台": imap.MailboxAttrHasNoChildren, "Lists/Tides, Gulls": imap.MailboxAttrHasNoChildren,
		"Projects/Skerry Light": imap.MailboxAttrHasChildren,
	} {
		if b := boxes[name]; b == nil || !slices.Contains(b.Attrs, attr) {
			t.Errorf("%q: want it listed with %s, got %+v", name, attr, b)
		}
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := login(t, s)
	if _, err := c.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		t.Fatal(err)
	}
	day := func(s string) time.Time {
		d, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	field := func(key, value string) imap.SearchCriteria {
		return imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: key, Value: value}}}
	}
	tests := []struct {
		name     string
		criteria imap.SearchCriteria
		want     string
	}{
		{"all", imap.SearchCriteria{}, "3 4 9 12 13 17 18 21 22 25 26 30 31"},
		{"nothing", field("Subject", "no such subject"), ""},
		{"uid range to the end", imap.SearchCriteria{UID: []imap.UIDSet{{{Start: 26, Stop: 0}}}}, "26 30 31"},
		{"a star below the range", imap.SearchCriteria{UID: []imap.UIDSet{{{Start: 900, Stop: 0}}}}, "31"},
		{"sequence numbers", imap.SearchCriteria{SeqNum: []imap.SeqSet{{{Start: 1, Stop: 2}}}}, "3 4"},
		{"unseen", imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen}}, "21 26 30 31"},
		{"keyword in another case", imap.SearchCriteria{Flag: []imap.Flag{"$forwarded"}}, "18"},
		{"decoded subject", field("Subject", "grüße vom leuchtturm"), "9"},
		{"larger", imap.SearchCriteria{Larger: 2000}, "4 12 18"},
		{"internal date", imap.SearchCriteria{Since: day("2025-10-01"), Before: day("2025-10-06")}, "18 21"},
		{"sent date, absent in 21 and 30", imap.SearchCriteria{SentSince: day("2025-10-05")}, "22 25 26 30 31"},
		{"body", imap.SearchCriteria{Body: []string{"TICKETS stay valid"}}, "25 26"},
		{"not", imap.SearchCriteria{Not: []imap.SearchCriteria{{Flag: []imap.Flag{imap.FlagSeen}}}}, "21 26 30 31"},
		{"or", imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{field("From", "zoe@"), field("From", "olga@")}}}, "12 31"},
	}
	for _, tt := range tests {
		data, err := c.UIDSearch(&tt.criteria, nil).Wait()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got []string
		for _, uid := range data.AllUIDs() {
			got = append(got, fmt.Sprint(uid))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestHeaderFieldsAndPartials(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := login(t, s)
	if _, err := c.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		uid  imap.UID
		item imap.FetchItemBodySection
		want string
	}{
		{"two fields, folded, in the order of the header", 12, imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"References", "to"}},
			"To: ada@skerry.example\r\nReferences: <agenda.2025-08-18@archive.example>\r\n\t<agenda.2025-08-20@archive.example>\r\n\r\n"},
		{"all but two", 21, imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFieldsNot: []string{"From", "Date"}}, "To: ada@skerry.example\r\n\r\n"},
		{"none of them there", 21, imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Date"}}, "\r\n"},
		{"a piece", 21, imap.FetchItemBodySection{Partial: &imap.SectionPartial{Offset: 6, Size: 6}}, "keeper"},
		{"a piece past the end", 21, imap.FetchItemBodySection{Partial: &imap.SectionPartial{Offset: 9000, Size: 6}}, ""},
		{"a part", 13, imap.FetchItemBodySection{Part: []int{1, 1}}, "Lamp inspection on Friday, 12 September, 10:00. Bring a cloth, not paper.\r\n"},
	}
	for _, tt := range tests {
		tt.item.Peek = true
		got, err := c.Fetch(imap.UIDSetNum(tt.uid), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{&tt.item}}).Collect()
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %d messages, %v", tt.name, len(got), err)
			continue
		}
		if octets := got[0].FindBodySection(&tt.item); string(octets) != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, octets, tt.want)
		}
	}
}

// Whatever would change a real server is refused and counted, so that a test
// of I7 can ask for the count.
func TestRefusesAndCountsChanges(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		readOnly bool
		do       func(c *imapclient.Client) error
		refused  bool
		changes  int64
	}{
		{"store", false, func(c *imapclient.Client) error {
			return c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close()
		}, true, 1},
		{"expunge", false, func(c *imapclient.Client) error { return c.Expunge().Close() }, true, 1},
		{"create", false, func(c *imapclient.Client) error { return c.Create("New", nil).Wait() }, true, 1},
		{"body without PEEK", false, func(c *imapclient.Client) error {
			return c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{}}}).Close()
		}, false, 1},
		{"body without PEEK after EXAMINE", true, func(c *imapclient.Client) error {
			return c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{}}}).Close()
		}, false, 0},
		{"close after EXAMINE", true, func(c *imapclient.Client) error { return c.UnselectAndExpunge().Wait() }, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			c := login(t, s)
			if _, err := c.Select("INBOX", &imap.SelectOptions{ReadOnly: tt.readOnly}).Wait(); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(c); (err != nil) != tt.refused {
				t.Errorf("refused is %v: %v", tt.refused, err)
			}
			if n := s.Changes(); n != tt.changes {
				t.Errorf("counted %d changes, want %d", n, tt.changes)
			}
		})
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()
	s := start(t, demo.WithPassword("three long, one short"))
	err := dial(t, s).Login(demo.User, demo.DefaultPassword).Wait()
	var refused *imap.Error
	if !errors.As(err, &refused) || refused.Code != imap.ResponseCodeAuthenticationFailed {
		t.Errorf("a wrong password is answered with %v", err)
	}
	if err := dial(t, s).Login(demo.User, "three long, one short").Wait(); err != nil {
		t.Error(err)
	}
}

// The repository's pipeline.yaml reads what Environ sets, and nothing else.
func TestEnvironIsWhatThePipelineReads(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../../pipeline.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^[^#\n]*\$\{env:([A-Z_]+)`).FindAllSubmatch(file, -1) {
		want = append(want, string(m[1]))
	}
	var got []string
	for _, v := range start(t).Environ() {
		name, value, ok := strings.Cut(v, "=")
		if !ok || value == "" {
			t.Errorf("%q isn't name=value", v)
		}
		got = append(got, name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("Environ sets %v, pipeline.yaml reads %v", got, want)
	}
}

func TestStaysOnLoopback(t *testing.T) {
	t.Parallel()
	if s, err := demo.Start(t.Context(), demo.WithAddress("0.0.0.0:0")); err == nil {
		_ = s.Close()
		t.Error("it listens on all interfaces, without TLS")
	}
}

func TestEndsWithItsContextAndMayBeClosedTwice(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := demo.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	deadline := time.Now().Add(5 * time.Second)
	for {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr())
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("it still listens 5 s after its context ended")
		}
		time.Sleep(time.Millisecond)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The sample is the same in every run and every build: a second export of it
// has nothing to do. Its shape is what the README speaks of.
func TestSampleIsStable(t *testing.T) {
	t.Parallel()
	one, two := start(t).Messages(), start(t).Messages()
	if len(one) != len(two) {
		t.Fatalf("%d messages, then %d", len(one), len(two))
	}
	seen := map[string]bool{}
	for i, m := range one {
		key := fmt.Sprint(m.UIDValidity, " ", m.UID)
		if seen[key] {
			t.Errorf("%s: %s appears twice", m.Mailbox, key)
		}
		seen[key] = true
		if !bytes.Equal(m.Octets, two[i].Octets) || m.UID != two[i].UID || m.UIDValidity != two[i].UIDValidity {
			t.Errorf("%s %d differs between two servers", m.Mailbox, m.UID)
		}
		if i > 0 && one[i-1].Mailbox == m.Mailbox && one[i-1].UID >= m.UID {
			t.Errorf("%s: UIDs don't rise at %d", m.Mailbox, m.UID)
		}
		if bytes.Contains(bytes.ReplaceAll(m.Octets, []byte("\r\n"), nil), []byte("\n")) {
			t.Errorf("%s %d: a bare LF; was the file checked out with other line ends?", m.Mailbox, m.UID)
		}
	}
	if len(one) != 31 {
		t.Errorf("the sample has %d messages; the README says 31", len(one))
	}
}
