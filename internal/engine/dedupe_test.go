package engine_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

func (r *rig) dedupe(mode string) {
	r.stages = append(r.stages, stages.Config{Name: "once", Dedupe: &mode})
}

// stored returns which messages a store holds, as source/mailbox/uid.
func (r *rig) stored(sink string) []string {
	var out []string
	has := r.stores[sink].contents()
	for name, s := range r.servers {
		for _, m := range s.mailboxes {
			for _, uid := range s.uids(m) {
				if _, ok := has[(message.ID{Source: name, Mailbox: m, UIDValidity: 7, UID: uid}).Key()]; ok {
					out = append(out, fmt.Sprintf("%s/%s/%d", name, m, uid))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// copies are messages of which all sources and mailboxes have the same, but
// for those that say() gives words of their own.
func copies(s *server, say func(mailbox string, uid uint32) string) {
	s.octets = func(mailbox string, uid uint32) []byte {
		return fmt.Appendf(nil, "From: a@example.com\r\nSubject: about %d\r\nMessage-ID: <%d@x>\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n%s\r\n", uid, uid, say(mailbox, uid))
	}
}

func same(string, uint32) string { return "\r\ntext" }

// many returns a rig of three sources with the same 80 messages in two
// mailboxes each.
func many(t *testing.T, mode string) *rig {
	r := newRig(t, newServer(80, "INBOX", "Archive"))
	r.servers["tom"], r.servers["zoe"] = newServer(80, "INBOX", "Archive"), newServer(80, "Archive", "INBOX")
	for _, s := range r.servers {
		copies(s, same)
	}
	r.dedupe(mode)
	r.index(message.NeedHeaders)
	return r
}

// TestDedupe: of all copies the first of the first source goes on, however the
// sources race each other, and later runs keep to it.
func TestDedupe(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"message_id", "content"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := many(t, mode)
			res := r.run()
			r.wantExit(res, engine.ExitDone)
			if sum := total(res); sum.Written != 80 || sum.Duplicates != 400 || sum.Listed != 480 || !sum.Complete {
				t.Errorf("%+v", sum)
			}
			first := func(s string) bool { return !strings.HasPrefix(s, "src/INBOX/") }
			if got := r.stored("files"); len(got) != 80 || slices.ContainsFunc(got, first) {
				t.Errorf("%d are written: %.300s", len(got), got)
			}
			if n := len(r.stores["index"].contents()); n != 80 {
				t.Errorf("%d records", n)
			}
			fetched := func() (n int64) {
				for _, s := range r.servers {
					n += s.fetched.Load()
				}
				return n
			}
			if want := map[string]int64{"message_id": 80, "content": 480}[mode]; fetched() != want {
				t.Errorf("%d bodies were fetched, want %d", fetched(), want)
			}
			if sum := total(r.run()); sum.DoneBefore != 480 {
				t.Errorf("again: %+v", sum)
			}
			// One more copy of an old one, and something new twice.
			r.servers["zoe"].count["INBOX"], r.servers["tom"].count["Archive"] = 81, 81
			copies(r.servers["zoe"], same)
			if sum := total(r.run()); sum.Written != 1 || sum.Duplicates != 1 {
				t.Errorf("with new ones: %+v", sum)
			}
			if got := slices.DeleteFunc(r.stored("files"), func(s string) bool { return strings.HasPrefix(s, "src/") }); !slices.Equal(got, []string{"tom/Archive/81"}) {
				t.Errorf("of the new ones %v is written", got)
			}
			// A new sink gets the same, and it alone (I8).
			r.data("more")
			r.wantExit(r.run(), engine.ExitDone)
			if diff := cmp.Diff(r.stored("files"), r.stored("more")); diff != "" {
				t.Error(diff)
			}
			// Without the stage the copies are exported too.
			r.stages = nil
			r.wantExit(r.run(), engine.ExitDone)
			if n := len(r.stored("files")); n != 482 {
				t.Errorf("without dedupe %d are written", n)
			}
		})
	}
}

// TestDedupeAfterDeaths: whatever dies meanwhile, the same ones are written
// (I2).
func TestDedupeAfterDeaths(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"message_id", "content"} {
		want := many(t, mode)
		want.run()
		for name, hurt := range map[string]func(*rig){
			"the sink at its 30th write": func(r *rig) { r.stores["files"].dieAt = 30 },
			"the sink in a flush":        func(r *rig) { r.stores["files"].dieIn = "flush" },
			"the index after a flush":    func(r *rig) { r.stores["index"].dieIn = "flushed" },
			"the first source":           func(r *rig) { r.servers["src"].dieAfter = 20 },
			"the last source":            func(r *rig) { r.servers["zoe"].dieAfter = 20 },
		} {
			t.Run(mode+": "+name, func(t *testing.T) {
				t.Parallel()
				r := many(t, mode)
				hurt(r)
				r.run()
				r.wantExit(r.run(), engine.ExitDone)
				for _, sink := range []string{"files", "index"} {
					if diff := cmp.Diff(want.stores[sink].contents(), r.stores[sink].contents()); diff != "" {
						t.Errorf("%s: %.2000s", sink, diff)
					}
				}
			})
		}
	}
}

// TestACopyOfAFailure: a duplicate of a dead letter is no duplicate, nor is one
// of a message that a later stage drops, or that is gone.
func TestACopyOfAFailure(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		hurt func(r *rig)
		exit int
		want []string
	}{
		"a sink refuses it": {func(r *rig) { r.stores["files"].refuse[2] = true }, engine.ExitLetters, nil},
		"the source refuses it": {func(r *rig) { r.servers["src"].refuse[2] = true }, engine.ExitLetters,
			[]string{"src/INBOX/1", "src/INBOX/3", "tom/INBOX/2"}},
		"it is gone": {func(r *rig) {
			r.servers["src"].gone[2] = true
			r.servers["src"].expunge = map[string]uint32{"INBOX": 2, "Archive": 2}
		}, engine.ExitDone,
			[]string{"src/INBOX/1", "src/INBOX/3", "tom/INBOX/2"}},
		"a later stage drops it": {func(r *rig) { r.filter("notfirst", `uid != 2 || source == "tom" && mailbox == "Archive"`) }, engine.ExitDone,
			[]string{"src/INBOX/1", "src/INBOX/3", "tom/Archive/2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newServer(3, "INBOX", "Archive"))
			r.servers["tom"] = newServer(3, "INBOX", "Archive")
			for _, s := range r.servers {
				copies(s, same)
			}
			r.dedupe("message_id")
			tt.hurt(r)
			res := r.run()
			r.wantExit(res, tt.exit)
			sum := total(res)
			if tt.want != nil {
				if diff := cmp.Diff(tt.want, r.stored("files")); diff != "" {
					t.Errorf("%+v %s", sum, diff)
				}
			} else if sum.DeadLetters != 4 || sum.Written != 2 || sum.Duplicates != 6 {
				t.Errorf("%+v", sum)
			}
			if again := total(r.run()); again.Pending != 0 || again.Written != 0 {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

// TestToldApart: messages that share a Message-ID and differ are both
// exported, and the user is told; those without one are no copies.
func TestToldApart(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]int64{"message_id": 8, "content": 7} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newServer(4, "INBOX", "Archive"))
			r.servers["src"].octets = func(mailbox string, uid uint32) []byte {
				head := "Message-ID: <1@x>\r\nFrom: a@example.com\r\nSubject: "
				switch uid {
				case 1: // another subject in each
					return fmt.Appendf(nil, "%s%s\r\n\r\ntext", head, mailbox)
				case 2: // no Message-ID, the same octets
					return []byte("Subject: x\r\n\r\ntext")
				case 3: // the same header, other octets
					return fmt.Appendf(nil, "Message-ID: <3@x>\r\n\r\n%s", mailbox)
				}
				return fmt.Appendf(nil, "Message-ID: <%d@%s>\r\n\r\ntext", uid, mailbox)
			}
			if mode == "message_id" {
				want-- // the third is taken for a copy: only content compares octets
			}
			var mu sync.Mutex
			var told []string
			r.opts.Events = func(e engine.Event) {
				if e.Kind == engine.StageNote {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, e.Text)
				}
			}
			r.dedupe(mode)
			res := r.run()
			if sum := total(res); sum.Written != want || sum.Pending != 0 {
				t.Errorf("%+v, want %d written", sum, want)
			}
			if got := len(told) == 1 && strings.Contains(told[0], "1 Message-IDs stand in messages that differ"); got != (mode == "message_id") {
				t.Errorf("told: %q", told)
			}
		})
	}
}

// TestAFailingAccountKeepsNoCopyBack: what only an account has that can't be
// opened is left for later, the copies of others go on.
func TestAFailingAccountKeepsNoCopyBack(t *testing.T) {
	t.Parallel()
	r := many(t, "message_id")
	r.servers["src"].openErr = errAuth
	res := r.run()
	r.wantExit(res, engine.ExitIncomplete)
	got := map[string]int{}
	for _, s := range r.stored("files") {
		got[s[:strings.LastIndexByte(s, '/')]]++
	}
	if diff := cmp.Diff(map[string]int{"tom/INBOX": 80}, got); diff != "" {
		t.Error(diff)
	}
	before := maps.Clone(r.stores["files"].contents())
	r.servers["src"].openErr = nil
	res = r.run()
	r.wantExit(res, engine.ExitDone)
	if sum := total(res); sum.Duplicates != 160 {
		t.Errorf("%+v", sum)
	}
	if diff := cmp.Diff(before, r.stores["files"].contents()); diff != "" {
		t.Errorf("%.500s", diff)
	}
}

// TestAFullDiskLetsNoCopyGo: what stops the run (a ledger whose disk is full or
// broken, as an account met it first) releases no copy: the next run ends as one
// that was never disturbed (I2).
func TestAFullDiskLetsNoCopyGo(t *testing.T) {
	t.Parallel()
	undisturbed := many(t, "message_id")
	undisturbed.wantExit(undisturbed.run(), engine.ExitDone)
	r := many(t, "message_id")
	r.servers["src"].openErr = fault.New(fault.Full, "the ledger: disk I/O error").WithHint("make room")
	res := r.run()
	r.wantExit(res, engine.ExitStopped)
	if !fault.Is(res.Err, fault.Full) || !strings.Contains(res.Err.Error(), "source src: ") {
		t.Errorf("error %v, want one of class Full that names the source", res.Err)
	}
	r.servers["src"].openErr = nil
	r.wantExit(r.run(), engine.ExitDone)
	if diff := cmp.Diff(undisturbed.stores["files"].contents(), r.stores["files"].contents()); diff != "" {
		t.Errorf("%.500s", diff)
	}
}

// TestTheHolderKeepsItsPlace: a copy that came since into an account before the
// holder's gets none of the backlog of a new sink, however late the holder's
// account is (I2, I8).
func TestTheHolderKeepsItsPlace(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"message_id", "content"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newServer(0, "INBOX"))
			r.servers["zoe"] = newServer(20, "INBOX")
			for _, s := range r.servers {
				copies(s, same)
			}
			r.dedupe(mode)
			r.wantExit(r.run(), engine.ExitDone)
			r.servers["src"].count["INBOX"] = 20
			r.wantExit(r.run(), engine.ExitDone)
			r.data("more")
			first := make(chan struct{}) // the other account claims before this one is opened
			var once sync.Once
			r.servers["zoe"].opening = func(int64) error {
				select {
				case <-first:
				case <-time.After(time.Second):
				}
				return nil
			}
			r.opts.Events = func(e engine.Event) {
				if e.Kind == engine.MailboxListed && e.Source == "src" {
					once.Do(func() { close(first) })
				}
			}
			res := r.run()
			r.wantExit(res, engine.ExitDone)
			if sum := total(res); sum.Written != 20 || sum.DoneBefore != 20 || sum.Pending != 0 {
				t.Errorf("%+v", sum)
			}
			for _, sink := range []string{"files", "more"} {
				if n := len(r.stores[sink].contents()); n != 20 || strings.HasPrefix(r.stored(sink)[0], "src/") {
					t.Errorf("%s has %d, as %v", sink, n, r.stored(sink)[0])
				}
			}
		})
	}
}

// TestContentIsComparedWhereNobodyWantsTheOctets: they are read for the
// comparison all the same.
func TestContentIsComparedWhereNobodyWantsTheOctets(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"small": "\r\ntext", "large": "\r\n" + strings.Repeat("text\r\n", 300_000)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newServer(5, "INBOX", "Archive"))
			copies(r.servers["src"], func(string, uint32) string { return text })
			r.dedupe("content")
			r.index(message.NeedHeaders)
			r.sinks = r.sinks[1:] // the record alone
			res := r.run()
			r.wantExit(res, engine.ExitDone)
			if sum := total(res); sum.Written != 5 || sum.Duplicates != 5 || len(r.stores["index"].contents()) != 5 {
				t.Errorf("%+v", sum)
			}
			if sum := total(r.run()); sum.DoneBefore != 10 {
				t.Errorf("again: %+v", sum)
			}
		})
	}
}
