package convert

import (
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/mapi"
)

// failure is one recipient that a delivery report speaks of (RFC 3464 §2.3).
type failure struct {
	address, action, status, diagnostic string
}

// find returns the first part of one of the media types, not looking into
// messages.
func find(e *message.Entity, mediaTypes ...string) *message.Entity {
	if slices.Contains(mediaTypes, e.Part.MediaType) {
		return e
	}
	if isMail(e.Part) {
		return nil
	}
	for _, c := range e.Children {
		if f := find(c, mediaTypes...); f != nil {
			return f
		}
	}
	return nil
}

// deliveryReport reads the delivery status and returns the last words of the
// message class (MS-OXCMAIL §2.1.3.6): that of failure wherever one failed, and
// where nothing can be read.
func (b *builder) deliveryReport() string {
	class := ""
	if e := find(b.e, "message/delivery-status", "message/global-delivery-status"); e != nil {
		for _, group := range groups(string(b.read(e, maxHeaders))) {
			h := message.NewHeader([]byte(group))
			f := failure{
				address:    reportAddress(h.Get("Final-Recipient")),
				action:     strings.ToLower(firstWord(h.Get("Action"))),
				status:     firstWord(h.Get("Status")),
				diagnostic: h.Text("Diagnostic-Code"),
			}
			if original := reportAddress(h.Get("Original-Recipient")); original != "" && strings.Contains(original, "@") {
				f.address = original
			}
			switch f.action {
			case "failed":
				class = "NDR"
				if f.address != "" {
					b.failures = append(b.failures, f)
				}
			case "delayed", "delivered", "relayed", "expanded":
				if class == "" {
					class = map[string]string{"delayed": "Delayed.DR", "delivered": "DR", "relayed": "Relayed.DR", "expanded": "Expanded.DR"}[f.action]
				}
			}
		}
	}
	if class == "" {
		class = "NDR"
	}
	return class
}

// failedRecipients adds a row for each recipient that failed. Its kind is
// none of To, Cc and Bcc: the report wasn't sent to it.
func (b *builder) failedRecipients() {
	for _, f := range b.failures {
		i := b.o.Recipients()
		if i == mapi.Limit {
			b.incomplete = true
			return
		}
		address := clean(f.address)
		if address == "" {
			continue
		}
		o := b.o.AddRecipient()
		b.recipientRow(o, i, row{typ: 0, name: address, address: address})
		o.Int(pidReasonCode, 0)
		o.Int(pidDiagnosticCode, -1)
		o.Int(pidStatusCode, statusCode(f.status))
		o.String(pidReportText, f.diagnostic)
		o.String(pidSupplementary, f.diagnostic)
	}
}

// readReport returns the last words of the class of a disposition notification
// (RFC 8098 §3.2.6): read, or deleted unread.
func (b *builder) readReport() string {
	if e := find(b.e, "message/disposition-notification", "message/global-disposition-notification"); e != nil {
		h := message.NewHeader(b.read(e, maxHeaders))
		v := h.Get("Disposition")
		if i := strings.LastIndexByte(v, ';'); i >= 0 && strings.HasPrefix(strings.ToLower(strings.TrimSpace(v[i+1:])), "deleted") {
			return "IPNNRN"
		}
	}
	return "IPNRN"
}

// groups cuts a report into its groups of fields.
func groups(s string) []string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	var out []string
	for g := range strings.SplitSeq(s, "\n\n") {
		if g = strings.Trim(g, "\n"); g != "" && len(out) < 10_000 {
			out = append(out, g)
		}
	}
	return out
}

// reportAddress takes the type off "rfc822; user@host".
func reportAddress(v string) string {
	if i := strings.IndexByte(v, ';'); i >= 0 {
		v = v[i+1:]
	}
	return strings.Trim(strings.TrimSpace(v), "<>")
}

func firstWord(s string) string {
	if f := strings.Fields(s); len(f) > 0 {
		return f[0]
	}
	return ""
}

// statusCode makes 511 of "5.1.1" (MS-OXOMSG §2.2.2.31, as Exchange writes it).
func statusCode(s string) int32 {
	n := int32(0)
	for i := 0; i < len(s) && n < 1e6; i++ {
		if s[i] >= '0' && s[i] <= '9' {
			n = n*10 + int32(s[i]-'0')
		}
	}
	return n
}
