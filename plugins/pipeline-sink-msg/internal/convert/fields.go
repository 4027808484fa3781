package convert

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/mapi"
)

// fields sets the header block and the fields that have a property each.
func (b *builder) fields() {
	if !b.opened { // else they were never sent
		b.transportHeaders()
	}
	b.o.String(pidListHelp, b.h.Text("List-Help"))
	b.o.String(pidListSubscribe, b.h.Text("List-Subscribe"))
	b.o.String(pidListUnsubscribe, b.h.Text("List-Unsubscribe"))
	if words := keywords(b.h.Text("Keywords")); len(words) > 0 {
		if id, ok := b.c.file.NamedString(mapi.PublicStrings, "Keywords"); ok {
			b.o.Strings(id, words)
		}
	}
	set := 0
	var seen map[uint16]bool
	b.h.Fields(func(name, value string) bool {
		if len(name) < 3 || len(name) > 100 || name[0]|0x20 != 'x' || name[1] != '-' || dropped(name) || !printable(name) {
			return true
		}
		if set == maxNamed {
			return false // the header block has them all
		}
		id, ok := b.c.file.NamedString(mapi.InternetHeaders, name)
		if !ok {
			return false
		}
		if seen[id] {
			return true // the first one counts, as elsewhere
		}
		if seen == nil {
			seen = make(map[uint16]bool)
		}
		seen[id] = true
		if strings.Contains(value, "=?") || !utf8.ValidString(value) {
			value = b.h.Text(name)
		}
		if value = strings.TrimSpace(value); value != "" && len(value) <= maxHeaders {
			b.o.String(id, value)
			set++
		}
		return true
	})
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7F {
			return false
		}
	}
	return true
}

func keywords(v string) []string {
	var out []string
	for _, w := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ';' }) {
		if w = strings.TrimSpace(w); w != "" && len(out) < 100 {
			out = append(out, w)
		}
	}
	return out
}

// dropped reports whether the field is one of Exchange's own, which must not
// cross organizations (MS-OXCMAIL §2.1.3.2.3). Those that say something of the
// mail itself stay.
func dropped(name string) bool {
	if len(name) < 24 || name[0]|0x20 != 'x' {
		return false
	}
	low := strings.ToLower(name)
	if !strings.HasPrefix(low, "x-ms-exchange-organization-") && !strings.HasPrefix(low, "x-ms-exchange-forest-") {
		return false
	}
	switch low {
	case "x-ms-exchange-organization-authas", "x-ms-exchange-organization-authdomain",
		"x-ms-exchange-organization-authmechanism", "x-ms-exchange-organization-authsource",
		"x-ms-exchange-organization-scl", "x-ms-exchange-organization-pcl",
		"x-ms-exchange-organization-senderidresult", "x-ms-exchange-organization-prd":
		return false
	}
	return true
}

// transportHeaders sets 007D: the header block as it stands, with CRLF, the
// folding kept. Raw 8-bit is UTF-8, else windows-1252.
func (b *builder) transportHeaders() {
	raw := b.h.Raw()
	if len(raw) > maxHeaders {
		b.incomplete = true
		raw = raw[:maxHeaders]
	}
	out := b.c.scratch[:0]
	skip := false
	for len(raw) > 0 {
		n := bytes.IndexByte(raw, '\n') + 1
		if n == 0 {
			n = len(raw)
		}
		line := raw[:n]
		raw = raw[n:]
		for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
			line = line[:len(line)-1]
		}
		if len(line) == 0 {
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			skip = false
			if line[0]|0x20 == 'x' {
				if i := bytes.IndexByte(line, ':'); i > 0 && i < 100 {
					skip = dropped(string(line[:i]))
				}
			}
		}
		if skip {
			continue
		}
		if utf8.Valid(line) {
			out = append(out, line...)
		} else {
			for _, c := range line {
				out = utf8.AppendRune(out, charmap.Windows1252.DecodeByte(c))
			}
		}
		out = append(out, '\r', '\n')
	}
	b.c.scratch = out
	if len(out) > 0 {
		out = append(out, '\r', '\n')
		b.o.String(pidTransportHeaders, string(out))
	}
}
