package livepage

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
)

// mostNews bounds what the page tells of what happened lately.
const mostNews = 30

// happening is something that a person may want to know.
type happening struct {
	At      time.Time
	Text    string
	Bad     bool
	version int64
}

// news are the last happenings, the oldest first.
type news []happening

func (n *news) add(h happening) {
	if len(*n) == mostNews {
		copy(*n, (*n)[1:])
		*n = (*n)[:mostNews-1]
	}
	*n = append(*n, h)
}

// sentence says what happened, "" for what the rest of the page shows.
func sentence(e engine.Event) (text string, bad bool) {
	switch e.Kind {
	case engine.AccountFailed:
		return fmt.Sprintf("%s failed: %v", e.Source, e.Err), true
	case engine.AccountParked:
		return fmt.Sprintf("%s is parked for %s: %v", e.Source, e.Wait.Round(time.Second), e.Err), true
	case engine.AccountRetried:
		return fmt.Sprintf("%s is tried again in %s: %v", e.Source, e.Wait.Round(100*time.Millisecond), e.Err), false
	case engine.AccountNote:
		return e.Source + ": " + e.Text, e.Err != nil
	case engine.StageNote:
		return e.Text, false
	case engine.SourceDied:
		return fmt.Sprintf("The process of source %s died with %d messages in hand; they are tried one by one at the end.", e.Source, e.Count), true
	case engine.SinkDied:
		return fmt.Sprintf("The process of sink %s died; what it hadn't flushed is written again: %v", e.Sink, e.Err), true
	case engine.StageDied:
		return fmt.Sprintf("The process of stage %s died; what it had in hand is tried again alone: %v", e.Stage, e.Err), true
	case engine.SinkFailed:
		return fmt.Sprintf("Sink %s can't go on: %v", e.Sink, e.Err), true
	case engine.DeadLetter:
		return fmt.Sprintf("Dead letter %s: %s", e.Message, e.Text), true
	case engine.Stopping:
		if e.Err != nil {
			return fmt.Sprintf("The run is stopping: %v", e.Err), true
		}
		return "The run is stopping: what is in flight is finished and committed.", false
	}
	return "", false
}

// mostGroups bounds the reasons that are told apart, mostNames the examples of
// one.
const (
	mostGroups = 40
	mostNames  = 5
)

// failure is what failed for one reason.
type failure struct {
	Count  int64    `json:"n"`
	Kind   string   `json:"k"`           // "accounts", "mailboxes" or "dead letters"
	Reason string   `json:"r"`           // a short word
	Where  string   `json:"w,omitempty"` // the stage or sink that refused
	Text   string   `json:"t"`           // of the first
	Hint   string   `json:"h,omitempty"`
	Names  []string `json:"x"` // the first few
}

type failureKey struct{ kind, where, reason string }

// letters are the dead letters of this run by their reason.
type letters map[failureKey]*failure

func (l letters) add(e engine.Event) {
	group(l, failureKey{"dead letters", e.Sink, e.Reason}, e.Message, e.Text, "")
}

func group(groups map[failureKey]*failure, key failureKey, name, text, hint string) *failure {
	f := groups[key]
	if f == nil {
		if len(groups) >= mostGroups {
			key = failureKey{kind: key.kind, reason: "other reasons"}
			f = groups[key]
		}
		if f == nil {
			f = &failure{Kind: key.kind, Where: key.where, Reason: key.reason, Text: text, Hint: hint}
			groups[key] = f
		}
	}
	f.Count++
	if len(f.Names) < mostNames {
		f.Names = append(f.Names, name)
	}
	return f
}

// failures groups what has failed so far, by reason. b.mu is held.
func (b *Board) failures() []failure {
	groups := map[failureKey]*failure{}
	for _, a := range b.accounts {
		if a.failing() {
			group(groups, failureKey{"accounts", "", a.reason}, a.name, a.err, a.hint)
		}
		if a.problems > 0 {
			f := group(groups, failureKey{"mailboxes", "", "incomplete"}, a.name+"/"+a.first.mailbox, a.first.text, "")
			f.Count += int64(a.problems - 1)
		}
	}
	out := []failure{}
	for _, from := range []map[failureKey]*failure{groups, b.letters} {
		for _, f := range from {
			c := *f
			c.Names = slices.Clone(f.Names)
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(x, y failure) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(y.Count, x.Count), cmp.Compare(x.Where, y.Where), cmp.Compare(x.Reason, y.Reason))
	})
	return out
}
