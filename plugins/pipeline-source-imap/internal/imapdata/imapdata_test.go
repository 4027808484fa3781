package imapdata

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, raw, want string }{
		{"ASCII", "Sent Items", "Sent Items"},
		{"RFC 3501's own", "~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"},
		{"an ampersand", "A&-B", "A&B"},
		{"outside of the plane", "&2D3cqQ-", "💩"},
		{"a lone ampersand", "A&B", "A&B"},
		{"an ampersand at the end", "A&", "A&"},
		{"broken base64", "&####-", "&####-"},
		{"half a character", "&AA-", "&AA-"},
		{"half of a pair", "&2D0-", "&2D0-"},
		{"raw UTF-8", "Entwürfe", "Entwürfe"},
		{"raw 8-bit", "Entw\xfcrfe", "Entwürfe"},
		{"shifted ASCII", "&AEE-", "A"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := DecodeName(tt.raw); got != tt.want {
				t.Errorf("%q is %q, want %q", tt.raw, got, tt.want)
			}
		})
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"Sent", "&U,BTFw-", "A&B", "&", "&-", "日本語/x & y", "💩", "\xff\xfe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(DecodeName(s)) {
			t.Errorf("%q decodes to invalid UTF-8", s)
		}
		if utf8.ValidString(s) && !strings.ContainsRune(s, utf8.RuneError) {
			if back := DecodeName(EncodeName(s)); back != s {
				t.Errorf("%q comes back as %q", s, back)
			}
		}
	})
}

func TestReadList(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, data, want string
		sep              byte
	}{
		{"quoted", `(\HasNoChildren) "/" "Sent Items"`, "Sent Items", '/'},
		{"an atom", `() "." INBOX`, "INBOX", '.'},
		{"no levels", `() NIL inbox`, "INBOX", 0},
		{"a literal", "() \"/\" {5}\r\na\"b\\c", `a"b\c`, '/'},
		{"another separator", `() "^" "A^B/C"`, "A/B\u2215C", '^'},
		{"a backslash for a separator", `() "\\" "A\\B"`, "A/B", '\\'},
		{"with extended data", `() "/" Foo ("CHILDINFO" ("SUBSCRIBED"))`, "Foo", '/'},
		{"encoded levels with - between", `() "-" "&ANw-bung-&ANw-b"`, "Übung/Üb", '-'},
		{"an atom with spaces", `() "/" Sent Items`, "Sent Items", '/'},
		{"INBOX in another case, with levels", `() "." "inbox.Old"`, "INBOX/Old", '.'},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, ok := ReadList([]byte(tt.data))
			if !ok || l.Separator != tt.sep || l.Name(false) != tt.want {
				t.Errorf("%v %q %q, want %q %q", ok, l.Separator, l.Name(false), tt.sep, tt.want)
			}
		})
	}
}

func TestReadNamespaces(t *testing.T) {
	t.Parallel()
	for data, want := range map[string][]string{
		`(("" "/")) NIL NIL`: nil,
		`(("INBOX." ".")) (("user." ".")) (("shared." ".")("#public/" "/" "X-PARAM" ("a" "b")))`: {"user.", "shared.", "#public/"},
		`NIL NIL (("" NIL))`: {""},
		`((`:                 nil,
	} {
		if got := ReadNamespaces([]byte(data)); !slices.Equal(got.Others, want) {
			t.Errorf("%s: %q, want %q", data, got, want)
		}
	}
}

func TestReadStatus(t *testing.T) {
	t.Parallel()
	for _, data := range []string{
		`"My box" (MESSAGES 5 UIDNEXT 9 UIDVALIDITY 4294967295 HIGHESTMODSEQ 123456789012 SIZE 77)`,
		`My box (messages 5 SIZE 77 X-NEW (a b) UIDNEXT 9 UIDVALIDITY 4294967295 HIGHESTMODSEQ 123456789012 )`,
	} {
		st, ok := ReadStatus([]byte(data))
		want := Status{Raw: "My box", Messages: 5, UIDNext: 9, UIDValidity: 4294967295, ModSeq: 123456789012, Size: 77}
		if !ok || st != want {
			t.Errorf("%s: %+v, want %+v", data, st, want)
		}
	}
}

func TestItems(t *testing.T) {
	t.Parallel()
	var it Items
	it.Read([]byte("(UID 5 FLAGS (\\Seen a]b) RFC822.SIZE 4294967299 INTERNALDATE \"29-Feb-2020 12:00:00 +0100\" " +
		"X-GM-MSGID 1278455344230334865 X-GM-THRID 1266894439832287888 X-GM-LABELS (\\Inbox \"M&APw-ll\" foo) EMAILID (M1) MODSEQ (7) " +
		"BODY[HEADER] {16}\r\nSubject: (\"x\r\n\r\n X-OTHER \"v\" BODYSTRUCTURE (\"A\" \"B\"))"))
	if it.UID != 5 || it.Size != 4294967299 || !slices.Equal(it.Flags, []string{`\Seen`, "a]b"}) || it.ModSeq != 7 || it.ObjectID != "M1" {
		t.Errorf("%+v", it)
	}
	if !it.InternalDate.Equal(time.Date(2020, 2, 29, 11, 0, 0, 0, time.UTC)) || string(it.Header) != "Subject: (\"x\r\n\r\n" {
		t.Errorf("date %v, header %q", it.InternalDate, it.Header)
	}
	if it.Gmail.MessageID != 1278455344230334865 || it.Gmail.ThreadID != 1266894439832287888 || !slices.Equal(it.Gmail.Labels, []string{"Müll", `\Inbox`, "foo"}) {
		t.Errorf("Gmail: %+v", it.Gmail)
	}
	if it.Extra["X-OTHER"] != "v" || string(it.Structure) != `("A" "B")` {
		t.Errorf("extra %q, structure %q", it.Extra, it.Structure)
	}
}

func FuzzItems(f *testing.F) {
	for _, s := range []string{
		"(UID 5 FLAGS (\\Seen) BODY[] {3}\r\nabc)", `(UID 5 BODY[HEADER.FIELDS (X)]<0> "x" X-A (a (b)))`, "(", ")", "(UID", `("`, "({99999999}\r\n",
		"(INTERNALDATE NIL RFC822.SIZE -1 UID 99999999999)",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var it Items
		it.Read(slices.Clone(data)) // no panic, and an end
		if l, ok := ReadList(data); ok && !utf8.ValidString(l.Name(false)) {
			t.Errorf("the name of %q is invalid UTF-8", data)
		}
		ReadStatus(data)
		ReadNamespaces(data)
		var s Set
		s.ReadSearch(data)
		s.ReadESearch(data)
		wellFormed(t, s)
	})
}

// wellFormed checks what Set promises.
func wellFormed(t *testing.T, s Set) {
	t.Helper()
	for i, r := range s {
		if r.First > r.Last || i > 0 && uint64(s[i-1].Last)+1 >= uint64(r.First) {
			t.Fatalf("the set %v isn't in order", s)
		}
	}
}

func TestSets(t *testing.T) {
	t.Parallel()
	s := Of([]uint32{5, 1, 2, 3, 9, 4294967295, 4294967294, 2})
	if got := s.String(); got != "1:3,5,9,4294967294:4294967295" {
		t.Errorf("the set is %s", got)
	}
	for _, tt := range []struct {
		name, got, want string
	}{
		{"count", fmt.Sprint(s.Count()), "7"},
		{"first", s.First(4).String(), "1:3,5"},
		{"first of a range", s.First(2).String(), "1:2"},
		{"last", s.Last(3).String(), "9,4294967294:4294967295"},
		{"last of a range", s.Last(1).String(), "4294967295"},
		{"more than there are", s.Last(99).String(), s.String()},
		{"below", s.Below(5).String(), "1:3"},
		{"above", s.Above(5).String(), "9,4294967294:4294967295"},
		{"above the last", s.Above(4294967295).String(), ""},
		{"below the first", s.Below(1).String(), ""},
		{"and", s.And(Set{{2, 9}}).String(), "2:3,5,9"},
		{"minus", s.Minus(Set{{2, 2}, {4, 4294967294}}).String(), "1,3,4294967295"},
		{"minus all", s.Minus(Set{{1, 4294967295}}).String(), ""},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	chunks := Of([]uint32{1, 3, 5, 7, 9}).Chunks(4)
	if len(chunks) != 3 || chunks[0].Text != "1,3" || chunks[2].Set.String() != "9" {
		t.Errorf("chunks are %v", chunks)
	}
}

func TestRanks(t *testing.T) {
	t.Parallel()
	rank := Set{{1, 3}, {5, 5}, {4294967290, 4294967295}}.Ranks()
	for uid, want := range map[uint32]uint32{1: 1, 3: 3, 4: 0, 5: 4, 6: 0, 4294967290: 5, 4294967295: 10} {
		if got := rank(uid); got != want {
			t.Errorf("UID %d is at %d, want %d", uid, got, want)
		}
	}
}

func TestTake(t *testing.T) {
	t.Parallel()
	whole := func() Set { return Set{{1, 3}, {5, 5}, {9, 12}} }
	for n := range int64(10) {
		for name, take := range map[string]func(*Set, int64) Set{"first": (*Set).TakeFirst, "last": (*Set).TakeLast} {
			rest := whole()
			page := take(&rest, n)
			if page.Count() != min(n, 8) || rest.Count() != 8-page.Count() || len(page.And(rest)) > 0 {
				t.Errorf("%s %d: %s and %s", name, n, page, rest)
			}
			wellFormed(t, page)
			wellFormed(t, rest)
		}
	}
}

func FuzzSets(f *testing.F) {
	f.Add("1:5,7,9:*", "3:8")
	f.Add("4294967295:1", "2")
	f.Fuzz(func(t *testing.T, a, b string) {
		s, _ := ParseSet(a)
		u, _ := ParseSet(b)
		wellFormed(t, s)
		and, minus := s.And(u), s.Minus(u)
		wellFormed(t, and)
		wellFormed(t, minus)
		if and.Count()+minus.Count() != s.Count() {
			t.Errorf("%s and %s: %d in both, %d not, of %d", s, u, and.Count(), minus.Count(), s.Count())
		}
		if back, ok := ParseSet(s.String()); len(s) > 0 && (!ok || back.String() != s.String()) {
			t.Errorf("%s comes back as %s", s, back)
		}
		if n := s.Count() / 2; n > 0 {
			lo := s.First(n)
			if lo.Count() != n || s.Last(s.Count()-n).Count() != s.Count()-n || lo.Count()+s.Above(lo[len(lo)-1].Last).Count() != s.Count() {
				t.Errorf("%s isn't cut in halves", s)
			}
		}
	})
}

// TestTakeAtAUID: what is taken and what is left are the set, cut at the UID.
func TestTakeAtAUID(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		set            string
		uid            uint32
		through, above string
	}{
		{"1:5,8,10:20", 8, "1:5,8", "10:20"},
		{"1:5,8,10:20", 12, "1:5,8,10:12", "13:20"},
		{"1:5,8,10:20", 7, "1:5", "8,10:20"},
		{"1:5,8,10:20", 20, "1:5,8,10:20", ""},
		{"3:5", 1, "", "3:5"},
		{"4294967290:4294967295", 4294967292, "4294967290:4294967292", "4294967293:4294967295"},
		{"", 5, "", ""},
	} {
		set, _ := ParseSet(tt.set)
		if got := set.TakeThrough(tt.uid).String(); got != tt.through || set.String() != tt.above {
			t.Errorf("%s through %d: %s and %s are left, want %s and %s", tt.set, tt.uid, got, set, tt.through, tt.above)
		}
		if tt.uid == 1<<32-1 {
			continue
		}
		set, _ = ParseSet(tt.set)
		if got := set.TakeFrom(tt.uid + 1).String(); got != tt.above || set.String() != tt.through {
			t.Errorf("%s from %d: %s and %s are left, want %s and %s", tt.set, tt.uid+1, got, set, tt.above, tt.through)
		}
	}
	var down []uint32
	all, _ := ParseSet("1:3,7")
	if !all.Each(true, func(u uint32) bool { down = append(down, u); return true }) || !slices.Equal(down, []uint32{7, 3, 2, 1}) {
		t.Errorf("descending: %v", down)
	}
	if all.Each(true, func(u uint32) bool { return u > 3 }) {
		t.Error("a walk that was broken off counts as whole")
	}
}
