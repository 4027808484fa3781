package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/limit"
	"github.com/mailhaul/pipeline/pkg/message"
)

func TestARunWritesEverythingOnce(t *testing.T) {
	t.Parallel()
	s := newServer(1500, "INBOX", "Sent", "Empty")
	s.count["Empty"] = 0
	r := newRig(t, s)
	r.index(message.NeedHeaders | message.NeedStructure)
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	r.wantAll("files", nil)
	if n := r.stores["files"].summed; n != 3000 {
		t.Errorf("the sink was told the sums of %d bodies, want 3000: the others are hashed twice", n)
	}
	if n := len(r.stores["index"].contents()); n != 3000 {
		t.Errorf("%d records, want 3000", n)
	}
	if n := s.fetched.Load(); n != 3000 {
		t.Errorf("%d bodies were fetched, want each once", n)
	}
	if sum := total(res); sum.Listed != 3000 || sum.Written != 3000 || !sum.Complete {
		t.Errorf("sum: %+v", sum)
	}

	t.Run("again: nothing is listed, fetched or opened", func(t *testing.T) {
		before, opened := r.stores["files"].contents(), r.stores["files"].opened
		listed := s.listed.Load()
		res := r.run()
		r.wantExit(res, engine.ExitDone)
		if s.listed.Load() != listed || s.fetched.Load() != 3000 {
			t.Error("an unchanged mailbox was listed or fetched")
		}
		if r.stores["files"].opened != opened || r.stores["index"].opened != 1 {
			t.Error("a sink was opened with nothing to write")
		}
		if diff := cmp.Diff(before, r.stores["files"].contents()); diff != "" {
			t.Error(diff)
		}
		if sum := total(res); sum.DoneBefore != 3000 || sum.Listed != 3000 {
			t.Errorf("sum: %+v", sum)
		}
	})
	t.Run("a new message costs one message", func(t *testing.T) {
		s.count["INBOX"]++
		listed := s.listed.Load()
		res := r.run()
		r.wantExit(res, engine.ExitDone)
		r.wantAll("files", nil)
		if n := s.fetched.Load(); n != 3001 {
			t.Errorf("%d bodies fetched in all, want 3001", n)
		}
		if n := s.listed.Load() - listed; n != 1501 {
			t.Errorf("%d summaries listed, want the one mailbox's 1501 ids", n)
		}
		if sum := total(res); sum.DoneBefore != 3000 || sum.Written != 1 {
			t.Errorf("sum: %+v", sum)
		}
	})
	t.Run("a new sink gets the backlog, and it alone", func(t *testing.T) {
		writes := r.stores["files"].writes
		r.data("second")
		res := r.run()
		r.wantExit(res, engine.ExitDone)
		r.wantAll("second", nil)
		if r.stores["files"].writes != writes {
			t.Error("the old sink was written to")
		}
		for _, rec := range r.stores["index"].contents() {
			if !strings.Contains(rec, "files:") || !strings.Contains(rec, "second:") {
				t.Fatalf("a record wasn't replaced: %s", rec)
			}
		}
	})
}

func TestAnIndexAloneFetchesNoBody(t *testing.T) {
	t.Parallel()
	s := newServer(700, "INBOX")
	r := newRig(t, s)
	r.sinks = nil
	r.index(message.NeedHeaders | message.NeedStructure)
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	if n := s.fetched.Load(); n != 0 {
		t.Errorf("%d bodies were fetched", n)
	}
	if n := len(r.stores["index"].contents()); n != 700 {
		t.Errorf("%d records, want 700", n)
	}
}

func TestStages(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		filters []string
		limit   *limit.Config
		keeps   func(mailbox string, uid uint32) bool
		dropped map[string]int64
		listed  message.Needs // what listings may ask for at the most
	}{
		"a filter on size asks for sizes alone": {
			filters: []string{"size < 110"},
			keeps:   func(m string, uid uint32) bool { return len(newServer(0).octets(m, uid)) < 110 },
			listed:  message.NeedSize,
		},
		"a filter on headers": {
			filters: []string{`subject endsWith "7"`},
			keeps:   func(_ string, uid uint32) bool { return uid%10 == 7 },
			dropped: map[string]int64{"f0": 540},
			listed:  message.NeedHeaders,
		},
		"the cheaper of two filters gets the credit": {
			filters: []string{`subject endsWith "7"`, "internal_date < date(\"1970-01-01T00:01:00Z\")"},
			keeps:   func(_ string, uid uint32) bool { return uid%10 == 7 && uid < 60 },
			dropped: map[string]int64{"f0": 106, "f1": 482},
			listed:  message.NeedHeaders | message.NeedInternalDate,
		},
		"a limit for each mailbox": {
			limit:   &limit.Config{Messages: 10, Per: "mailbox"},
			keeps:   func(_ string, uid uint32) bool { return uid <= 10 },
			dropped: map[string]int64{"few": 580},
		},
		"a limit for the source": {
			limit:   &limit.Config{Messages: 310, Per: "source"},
			keeps:   func(m string, uid uint32) bool { return m == "A" || uid <= 10 },
			dropped: map[string]int64{"few": 290},
		},
		"a limit after a filter counts what passed": {
			filters: []string{`subject endsWith "7"`},
			limit:   &limit.Config{Messages: 2, Per: "mailbox"},
			keeps:   func(_ string, uid uint32) bool { return uid == 7 || uid == 17 },
			dropped: map[string]int64{"f0": 540, "few": 56},
			listed:  message.NeedHeaders,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(300, "A", "B")
			r := newRig(t, s)
			for i, f := range tc.filters {
				r.filter(fmt.Sprintf("f%d", i), f)
			}
			if tc.limit != nil {
				r.stages = append(r.stages, stages.Config{Name: "few", Limit: tc.limit})
			}
			res := r.run()
			r.wantExit(res, engine.ExitDone)
			r.wantAll("files", tc.keeps)
			if asked := message.Needs(s.needs.Load()); asked&^tc.listed != 0 {
				t.Errorf("listings asked for %s, need at the most %s", asked, tc.listed)
			}
			if tc.dropped != nil {
				if diff := cmp.Diff(tc.dropped, total(res).Dropped); diff != "" {
					t.Errorf("dropped (-want +got):\n%s", diff)
				}
			}
			fetched := s.fetched.Load()
			if kept := int64(len(r.stores["files"].contents())); fetched != kept {
				t.Errorf("%d bodies were fetched for %d kept messages", fetched, kept)
			}
			// More mail, the same rules: nothing is fetched twice.
			s.count["A"] = 301
			r.run()
			if s.fetched.Load() > fetched+1 {
				t.Errorf("%d bodies were fetched again", s.fetched.Load()-fetched)
			}
		})
	}
}

// I8: the file is the truth. What a filter dropped is judged again, from the
// values that it read, when the rules change.
func TestChangedRulesJudgeDropsAgain(t *testing.T) {
	t.Parallel()
	s := newServer(100, "INBOX")
	r := newRig(t, s)
	r.filter("small", "size < 100")
	r.run()
	kept := len(r.stores["files"].contents())
	asked := s.needs.Swap(0)
	r.stages = nil
	r.filter("small", "size < 90")
	r.run()
	if again := s.needs.Load(); again != 0 {
		t.Errorf("after a stricter filter the listing asked for %s; the kept values tell (first run: %s)", message.Needs(again), message.Needs(asked))
	}
	if n := len(r.stores["files"].contents()); n != kept {
		t.Errorf("%d files, want %d: what is written stays", n, kept)
	}
	r.stages = nil
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
}

func TestRouting(t *testing.T) {
	t.Parallel()
	s := newServer(100, "A", "B")
	r := newRig(t, s)
	when, err := expression.Compile(`mailbox == "B"`, expression.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.sinks[0].When = when
	r.index(message.NeedHeaders)
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	r.wantAll("files", func(m string, _ uint32) bool { return m == "B" })
	if n := s.fetched.Load(); n != 100 {
		t.Errorf("%d bodies were fetched, want only the routed 100", n)
	}
	if n := len(r.stores["index"].contents()); n != 200 {
		t.Errorf("%d records, want 200", n)
	}
	r.sinks[0].When = nil
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
}
