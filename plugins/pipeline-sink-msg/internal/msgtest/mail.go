package msgtest

import (
	"html"
	"strings"
)

// Mail returns where a message breaks the rules that hold for mail, beyond
// those of its format: addresses, and what is shown within the HTML.
func Mail(o *Object) []string {
	r := &reader{}
	r.mail(o, "")
	return r.findings
}

func (r *reader) mail(o *Object, where string) {
	if o.Int(0xE07)&8 == 0 {
		r.person(o, where+" sender", 0xC1A, 0xC1E, 0xC1F, 0x5D01, 0xC19, 0xC1D)
		r.person(o, where+" representing", 0x42, 0x64, 0x65, 0x5D02, 0x41, 0x3B)
	}
	for _, p := range o.Recipients {
		r.person(p, where+" recipient", 0x3001, 0x3002, 0x3003, 0x39FE, 0xFFF, 0x300B)
	}
	r.inline(o, where)
	for _, a := range o.Attachments {
		if a.Message != nil {
			r.mail(a.Message, where+"/"+a.Text(0x3001))
		}
	}
}

// person checks the properties of one address (MS-OXCDATA §2.2.5.1).
func (r *reader) person(o *Object, where string, name, typ, address, smtp, entry, key uint16) {
	a := o.Text(address)
	if a == "" || o.Text(name) == "" || o.Text(typ) != "SMTP" || o.Text(smtp) != a {
		r.bad("%s: name %q, type %q, addresses %q and %q", where, o.Text(name), o.Text(typ), a, o.Text(smtp))
	}
	if got, want := string(o.Binary(key)), "SMTP:"+strings.ToUpper(a)+"\x00"; got != want {
		r.bad("%s: search key %q, not %q", where, got, want)
	}
	id := o.Binary(entry)
	if len(id) < 24 {
		r.bad("%s: entry id of %d octets", where, len(id))
		return
	}
	if got := strings.Split(decode(id[24:]), "\x00"); len(got) != 4 || got[0] != o.Text(name) || got[1] != "SMTP" || got[2] != a || got[3] != "" {
		r.bad("%s: entry id of %q, not of %q <%s>", where, got, o.Text(name), a)
	}
}

// inline checks that what is hidden is shown by the HTML, and the reverse.
func (r *reader) inline(o *Object, where string) {
	source := strings.ToLower(html.UnescapeString(string(o.Binary(0x1013))))
	cp := o.Int(0x3FDE)
	if source == "" || cp != 65001 && cp != 20127 {
		return
	}
	visible := false
	for i, a := range o.Attachments {
		id, hidden := a.Text(0x3712), a.Bool(0x7FFE)
		visible = visible || !hidden
		if id == "" {
			continue
		}
		shown := strings.Contains(source, "cid:"+strings.ToLower(id))
		if shown != hidden || shown != (a.Int(0x3714)&4 != 0) {
			r.bad("%s: attachment %d (%q): in the HTML %v, hidden %v, flags %d", where, i, id, shown, hidden, a.Int(0x3714))
		}
	}
	if o.Bool(0xE1B) != visible {
		r.bad("%s: visible attachments %v, 0E1B says %v", where, visible, o.Bool(0xE1B))
	}
}
