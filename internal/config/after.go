package config

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// After is what is done on the server with messages once they are exported:
// in every sink that wanted them, durably. One of Flag, Move and Delete is set.
type After struct {
	Flag      string        `json:"flag" doc:"set this flag: a system flag with its backslash, or a keyword" example:"\\Seen|$Exported"`
	Move      string        `json:"move" doc:"move them to this mailbox, which is made when it is missing, and isn't exported itself" example:"Exported"`
	Delete    bool          `json:"delete" doc:"delete them for good"`
	Only      string        `json:"only" enum:"written" default:"written" doc:"which messages: those that every sink that wanted them has written; what a stage dropped, a duplicate and a dead letter are never touched"`
	OlderThan time.Duration `json:"older_than" doc:"only messages that the server has had for so long (POP3: by their Date header); one whose age nobody knows is not touched" example:"7d"`
	Rehash    bool          `json:"rehash" doc:"before that, read the message's files back and hold them against the sinks' manifests; a message whose files aren't what was written stays on the server"`
	Batch     int           `json:"batch" default:"200" min:"1" max:"10000" doc:"messages in one request"`
}

// Validate says what tags can't.
func (a *After) Validate() error {
	n := 0
	for _, set := range []bool{a.Flag != "", a.Move != "", a.Delete} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fault.New(fault.Config, "exactly one of flag, move and delete says what is done").
			WithHint("as in after: {move: Exported}")
	}
	if a.Flag != "" && strings.ContainsFunc(a.Flag, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`(){%*"]`, r) }) {
		return fault.New(fault.Config, "%q is no flag: expected one as in \\Seen or $Exported", a.Flag).WithKey("flag")
	}
	return nil
}

// selection is what Fingerprint covers. A key that came later is left out when
// it isn't set: mailboxes that are done must not be listed for nothing.
func (s *Source) selection() ([]byte, error) {
	all := map[string]any{"include": s.Mailboxes.Include, "exclude": s.Mailboxes.Exclude, "newest": s.Newest, "limit": s.Limit, "vars": s.Vars}
	if s.After != nil {
		a := s.After
		all["after"] = selectedAfter{a.Flag, a.Move, a.Delete, a.Only, a.OlderThan, a.Batch}
	}
	return json.Marshal(all)
}

// selectedAfter is what of After says which messages are done: not how sure
// one wants to be of their files.
type selectedAfter struct {
	Flag      string        `json:"flag"`
	Move      string        `json:"move"`
	Delete    bool          `json:"delete"`
	Only      string        `json:"only"`
	OlderThan time.Duration `json:"older_than"`
	Batch     int           `json:"batch"`
}
