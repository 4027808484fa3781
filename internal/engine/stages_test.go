package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/attachments"
	"github.com/mailhaul/pipeline/internal/stages/header"
	"github.com/mailhaul/pipeline/internal/stages/mailbox"
	"github.com/mailhaul/pipeline/pkg/attachment"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// mailOf gives every message an attachment; large ones don't fit memory.
func mailOf(size int) func(string, uint32) []byte {
	return func(mailbox string, uid uint32) []byte {
		return fmt.Appendf(nil, "From: a@example.com\r\nX-Old: 1\r\nSubject: %s %d\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n"+
			"Content-Type: application/pdf; name=a.pdf\r\n\r\n%s\r\n--b--\r\n", mailbox, uid, strings.Repeat("0123456789abcde\n", size/16))
	}
}

// TestStagesChangeOctets: the sinks get what the stages made of a message, the
// record keeps the sum of what came, and a large body passes in pieces.
func TestStagesChangeOctets(t *testing.T) {
	t.Parallel()
	edit := stages.Config{Name: "edit", Header: &header.Config{Remove: []string{"x-old"}, Add: map[string]string{"X-New": "2"}}}
	strip := stages.Config{Name: "strip", Attachments: &attachments.Config{Strip: &attachment.Filter{}}}
	for _, size := range []int{100, 3 << 20} {
		for name, list := range map[string][]stages.Config{"header": {edit}, "both": {edit, strip}} {
			t.Run(fmt.Sprintf("%s of %d", name, size), func(t *testing.T) {
				t.Parallel()
				s := newServer(5, "INBOX")
				s.octets = mailOf(size)
				r := newRig(t, s)
				r.stages = list
				r.index(message.NeedHeaders | message.NeedStructure)
				r.wantExit(r.run(), engine.ExitDone)
				for uid := uint32(1); uid <= 5; uid++ {
					id := message.ID{Source: "src", Mailbox: "INBOX", UIDValidity: 7, UID: uid}
					came := s.octets("INBOX", uid)
					want := bytes.Replace(came, []byte("X-Old: 1\r\n"), nil, 1)
					want = bytes.Replace(want, []byte("boundary=b\r\n\r\n"), []byte("boundary=b\r\nX-New: 2\r\n\r\n"), 1)
					by := "[edit]"
					got := r.stores["files"].contents()[id.Key()]
					if name == "both" {
						by = "[edit strip]"
						before, _, _ := bytes.Cut(want, []byte("Content-Type: application/pdf"))
						_, attached, _ := bytes.Cut(came, []byte("a.pdf\r\n\r\n"))
						attached, _, _ = bytes.Cut(attached, []byte("\r\n--b--"))
						want = fmt.Appendf(before, "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nContent-Disposition: inline\r\n\r\n"+
							"An attachment was taken out of this message.\r\nName: a.pdf\r\nType: application/pdf\r\nSize: %d octets\r\nSHA-256: %x\r\n--b--\r\n", len(attached), sha256.Sum256(attached))
					}
					if diff := cmp.Diff(clip(string(want)), clip(got)); diff != "" || got != string(want) {
						t.Errorf("message %d: %s", uid, diff)
					}
					record := r.stores["index"].contents()[id.Key()]
					for _, w := range []string{fmt.Sprintf("%x INBOX %d %d ", sha256.Sum256(came), uid, len(came)), "changed by " + by} {
						if !strings.Contains(record, w) {
							t.Errorf("%q is missing in the record %q", w, record)
						}
					}
				}
			})
		}
	}
}

func clip(s string) string { return s[:min(len(s), 2000)] }

// TestAChangedStageIsForNewMessages: what is written stays, and its record
// says what was done to it, until the sink is written anew (I8).
func TestAChangedStageIsForNewMessages(t *testing.T) {
	t.Parallel()
	s := newServer(2, "INBOX")
	r := newRig(t, s)
	r.stages = []stages.Config{{Name: "one", Header: &header.Config{Add: map[string]string{"X-One": "1"}}}}
	r.run()
	before := r.stores["files"].contents()
	r.stages = []stages.Config{{Name: "two", Header: &header.Config{Add: map[string]string{"X-Two": "2"}}}}
	s.count["INBOX"] = 3
	r.index(message.NeedHeaders)
	r.run()
	after := r.stores["files"].contents()
	for id, octets := range before {
		if after[id] != octets {
			t.Errorf("%s changed: %q", id, after[id])
		}
		if record := r.stores["index"].contents()[id]; !strings.Contains(record, "changed by [one]") {
			t.Errorf("the record of what stage one changed is %q", record)
		}
	}
	if len(after) != 3 {
		t.Errorf("%d messages, want 3", len(after))
	}
	r.opts.Rewrite = []string{"files"}
	r.wantExit(r.run(), engine.ExitDone)
	for id, octets := range r.stores["files"].contents() {
		if !strings.Contains(octets, "X-Two: 2") || strings.Contains(octets, "X-One") {
			t.Errorf("%s written anew is %q", id, octets)
		}
		if record := r.stores["index"].contents()[id]; !strings.Contains(record, "changed by [two]") {
			t.Errorf("its record is %q", record)
		}
	}
}

// TestTagsAndMailboxes: what they note is read by later filters, by sinks and
// by the record, and drops are judged again from what was kept (I8).
func TestTagsAndMailboxes(t *testing.T) {
	t.Parallel()
	s := newServer(4, "INBOX", "Old")
	r := newRig(t, s)
	even := `uid in [2, 4]`
	r.stages = []stages.Config{
		{Name: "team", Tag: map[string]string{"team": "sales"}, When: &even},
		{Name: "land", Mailbox: &mailbox.Config{Map: map[string]string{"Old": "Archive"}, Prefix: "X/"}},
	}
	r.filter("sales", `vars.team == "sales" || lands_in == "X/Archive"`)
	index := r.index(message.NeedHeaders)
	r.data("archive")
	when, err := expression.Compile(`lands_in == "X/Archive" && vars.team == "sales"`, expression.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.sinks[2].When = when
	sum := total(r.run())
	if sum.Written != 6 || sum.Dropped["sales"] != 2 {
		t.Errorf("%+v", sum)
	}
	r.wantAll("archive", func(mailbox string, uid uint32) bool { return mailbox == "Old" && uid%2 == 0 })
	got := map[string]int{}
	for _, record := range index.contents() {
		_, noted, _ := strings.Cut(record, "vars ")
		got[noted]++
	}
	if diff := cmp.Diff(map[string]int{`map[team:sales], lands in "X/INBOX"`: 2, `map[team:sales], lands in "X/Archive"`: 2, `map[], lands in "X/Archive"`: 2}, got); diff != "" {
		t.Error(diff)
	}
	listed := s.listed.Load()
	if r.run(); s.listed.Load() != listed {
		t.Error("nothing is new, and yet it was listed")
	}
	all := `uid > 0`
	r.stages[0].When = &all
	if sum = total(r.run()); sum.Written != 6 { // two that were dropped, two for the archive, two that are judged for it anew
		t.Errorf("after a change: %+v", sum)
	}
	r.wantAll("files", nil)
}

// plugin is a stage plugin of the tests, in the process.
type plugin struct {
	apply func(*message.Message) (stage.Verdict, error)
}

func (p plugin) Apply(_ context.Context, m *message.Message) (stage.Verdict, error) {
	return p.apply(m)
}
func (plugin) Close() error { return nil }

func (r *rig) plugin(name string, spec stage.Spec, apply func(*message.Message) (stage.Verdict, error)) {
	word := "test"
	r.stages = append(r.stages, stages.Config{Name: name, Plugin: &word})
	if r.specs == nil {
		r.specs, r.plugins = map[string]stage.Spec{}, map[string]func(bool) (stage.Stage, error){}
	}
	r.specs[name] = spec
	r.plugins[name] = func(bool) (stage.Stage, error) { return plugin{apply}, nil }
}

// TestPluginStages: a plugin judges from the listing when it reads no body,
// tags for later filters, and changes octets.
func TestPluginStages(t *testing.T) {
	t.Parallel()
	t.Run("without bodies", func(t *testing.T) {
		t.Parallel()
		s := newServer(10, "INBOX")
		r := newRig(t, s)
		r.plugin("judge", stage.Spec{Needs: message.NeedHeaders}, func(m *message.Message) (stage.Verdict, error) {
			if m.Body != nil || m.Header == nil {
				t.Errorf("it got body %v, header %v", m.Body, m.Header)
			}
			m.Vars = map[string]string{"odd": fmt.Sprint(m.ID.UID%2 == 1)}
			if m.ID.UID == 3 {
				return stage.Drop, nil
			}
			return stage.Keep, nil
		})
		r.filter("odd", `vars.odd == "true"`)
		sum := total(r.run())
		if sum.Written != 4 || sum.Dropped["judge"] != 1 || sum.Dropped["odd"] != 5 || s.fetched.Load() != 4 {
			t.Errorf("%+v, %d fetched", sum, s.fetched.Load())
		}
		if sum := total(r.run()); sum.DoneBefore != 10 {
			t.Errorf("again: %+v", sum)
		}
	})
	for _, size := range []int{100, 3 << 20} {
		t.Run(fmt.Sprintf("changes %d octets", size), func(t *testing.T) {
			t.Parallel()
			s := newServer(6, "INBOX")
			s.octets = mailOf(size)
			s.cut[2] = 1 // fetched again, it goes through all stages again
			r := newRig(t, s)
			r.stages = []stages.Config{{Name: "edit", Header: &header.Config{Remove: []string{"X-Old"}}}}
			r.plugin("upper", stage.Spec{Needs: message.NeedBody, Changes: true}, func(m *message.Message) (stage.Verdict, error) {
				b, err := io.ReadAll(m.Body)
				switch {
				case err != nil:
					return 0, err
				case m.ID.UID == 1:
					return stage.Keep, nil // and leaves it alone
				case m.ID.UID == 4:
					return stage.Drop, nil
				case m.ID.UID == 5:
					return 0, fault.New(fault.Message, "not to my taste").WithReason("taste")
				}
				m.Body = message.BodyOf(bytes.ToUpper(b))
				return stage.Keep, nil
			})
			r.index(message.NeedHeaders)
			res := r.run()
			if sum := total(res); sum.Written != 4 || sum.Dropped["upper"] != 1 || sum.DeadLetters != 1 {
				t.Errorf("%+v", sum)
			}
			for _, uid := range []uint32{1, 2, 3, 6} {
				id := message.ID{Source: "src", Mailbox: "INBOX", UIDValidity: 7, UID: uid}
				want := bytes.Replace(s.octets("INBOX", uid), []byte("X-Old: 1\r\n"), nil, 1)
				by := "changed by [edit]"
				if uid != 1 {
					want, by = bytes.ToUpper(want), "changed by [edit upper]"
				}
				if got := r.stores["files"].contents()[id.Key()]; got != string(want) {
					t.Errorf("message %d: %s", uid, cmp.Diff(clip(string(want)), clip(got)))
				}
				if got := r.stores["index"].contents()[id.Key()]; !strings.Contains(got, by) || !strings.HasPrefix(got, fmt.Sprintf("%x", sha256.Sum256(s.octets("INBOX", uid)))) {
					t.Errorf("the record of message %d is %q", uid, got)
				}
			}
		})
	}
}

// TestAPluginStageThatDies: its process is started again, and the message that
// kills it twice is a dead letter (I6).
func TestAPluginStageThatDies(t *testing.T) {
	t.Parallel()
	s := newServer(20, "INBOX")
	r := newRig(t, s)
	var deaths, alone atomic.Int64
	apply := func(m *message.Message) (stage.Verdict, error) {
		if _, err := io.ReadAll(m.Body); err != nil {
			return 0, err
		}
		if m.ID.UID == 7 || m.ID.UID == 9 && deaths.Load() == 0 {
			deaths.Add(1)
			return 0, errDied
		}
		return stage.Keep, nil
	}
	r.plugin("frail", stage.Spec{Needs: message.NeedBody}, apply)
	r.plugins["frail"] = func(isolated bool) (stage.Stage, error) {
		if isolated {
			alone.Add(1)
		}
		return plugin{apply}, nil
	}
	r.wantExit(r.run(), engine.ExitLetters)
	r.wantAll("files", func(_ string, uid uint32) bool { return uid != 7 })
	if alone.Load() == 0 || deaths.Load() < 2 {
		t.Errorf("%d deaths, %d tries in a process of its own", deaths.Load(), alone.Load())
	}
}

// TestOnError: what becomes of a message at which a stage fails is what the
// file says.
func TestOnError(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]int{"drop": engine.ExitDone, "dead_letter": engine.ExitLetters, "stop": engine.ExitStopped} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newServer(3, "INBOX"))
			r.plugin("fails", stage.Spec{Needs: message.NeedBody}, func(m *message.Message) (stage.Verdict, error) {
				if m.ID.UID == 2 {
					return 0, errors.New("no idea")
				}
				return stage.Keep, nil
			})
			r.stages[0].OnError = &word
			res := r.run()
			r.wantExit(res, want)
			sum := total(res)
			switch word {
			case "drop":
				if sum.Dropped["fails"] != 1 {
					t.Errorf("%+v", sum)
				}
			case "dead_letter":
				if sum.DeadLetters != 1 {
					t.Errorf("%+v", sum)
				}
			case "stop":
				if sum.Pending == 0 || !strings.Contains(fmt.Sprint(res.Err), "stage fails: no idea") {
					t.Errorf("%+v, %v", sum, res.Err)
				}
			}
		})
	}
}

// TestWhatIsRewrittenUnchangedIsNotCalledChanged: the ledger forgets which
// stages changed a message when it is written anew without them.
func TestWhatIsRewrittenUnchangedIsNotCalledChanged(t *testing.T) {
	t.Parallel()
	r := newRig(t, newServer(3, "INBOX"))
	r.stages = []stages.Config{{Name: "edit", Header: &header.Config{Add: map[string]string{"X-New": "1"}}}}
	r.wantExit(r.run(), engine.ExitDone)
	r.stages, r.opts.Rewrite = nil, []string{"files"}
	r.wantExit(r.run(), engine.ExitDone)
	l, err := ledger.View(t.Context(), r.dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	box, err := l.Box(t.Context(), "src", "INBOX", 7)
	if err != nil {
		t.Fatal(err)
	}
	found, err := l.Lookup(t.Context(), box, []message.ID{{Source: "src", Mailbox: "INBOX", UIDValidity: 7, UID: 1}})
	if err != nil || len(found[0].Fates) != 1 || len(found[0].Changed) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
}
