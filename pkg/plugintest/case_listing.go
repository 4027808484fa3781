package plugintest

import (
	"fmt"
	"slices"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

func skips(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	for _, newest := range []bool{false, true} {
		whole := ids(s.summaries(a, source.ListRequest{Mailbox: box.Name, Newest: newest, Limit: listLimit}))
		for _, skip := range []int{1, len(whole) / 2, len(whole) - 1} {
			got := ids(s.summaries(a, source.ListRequest{Mailbox: box.Name, Newest: newest, Skip: skip, Limit: 2}))
			if want := whole[skip:min(skip+2, len(whole))]; len(whole) < listLimit && !slices.Equal(got, want) {
				a.fail("with Skip %d and Limit 2 of %d messages List yielded %v, want %v (newest first: %v)", skip, len(whole), got, want, newest)
			}
		}
		if len(whole) < listLimit {
			if got := s.summaries(a, source.ListRequest{Mailbox: box.Name, Newest: newest, Skip: len(whole)}); len(got) != 0 {
				a.fail("with Skip %d of %d messages List yielded %d", len(whole), len(whole), len(got))
			}
		}
	}
	s.close(a)
}

func listsAhead(a *attempt) {
	s := openSource(a, a.settings())
	needs := s.needs(a) & (message.NeedSize | message.NeedInternalDate)
	list := func(name string, next ...string) (listed []message.ID, told int) {
		listed = ids(s.summaries(a, source.ListRequest{
			Mailbox: name, Needs: needs, Limit: listLimit, Next: next, State: func(message.MailboxState) { told++ },
		}))
		return listed, told
	}
	var names []string
	for _, m := range s.mailboxes(a) {
		if m.Selectable && len(names) < 5 {
			names = append(names, m.Name)
		}
	}
	alone, toldAlone := map[string][]message.ID{}, map[string]int{}
	for _, name := range names {
		alone[name], toldAlone[name] = list(name)
	}
	// One of those that are named isn't there any more, and one is never come to.
	for _, left := range []int{-1, 0, 1} {
		for i, name := range names {
			if i == left {
				continue
			}
			listed, told := list(name, append(slices.Clone(names[i+1:]), "plugintest-isnt-there")...)
			if !slices.Equal(listed, alone[name]) {
				a.fail("List %q yielded %d messages where Next names mailboxes, and %d where it names none, not the same ones in the same order", name, len(listed), len(alone[name]))
			}
			if told != toldAlone[name] {
				a.fail("List %q told the mailbox's state %d times where Next names mailboxes, and %d times where it names none", name, told, toldAlone[name])
			}
		}
	}
	s.close(a)
}

func failsOnlyWhatFails(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	needs := s.needs(a) & (message.NeedSize | message.NeedInternalDate | message.NeedFlags)
	whole := s.summaries(a, source.ListRequest{Mailbox: box.Name, Needs: needs, Limit: listLimit})
	middle := whole[len(whole)/2]
	conditions := []source.Condition{
		{Field: "plugintest_no_such_field", Op: "<", Size: 0},
		{Field: "size", Op: "<=", Size: middle.Size},
		{Field: "size", Op: ">", Size: middle.Size},
		{Field: "internal_date", Op: ">=", Time: middle.InternalDate},
		{Field: "internal_date", Op: "<", Time: middle.InternalDate},
		{Field: "flags", Op: "has", Flag: `\Seen`},
		{Field: "flags", Op: "lacks", Flag: `\Seen`},
	}
	for _, c := range conditions {
		got := s.summaries(a, source.ListRequest{Mailbox: box.Name, Needs: needs, Limit: listLimit, Where: []source.Condition{c}})
		if !slices.Equal(ids(got), ids(whole)) {
			a.fail("with the condition %s List yielded %d messages, not the same %d in the same order: one that fails is listed too", say(c), len(got), len(whole))
			continue
		}
		for i, sum := range got {
			switch {
			case sum.Fails == 0:
			case sum.Fails != 1:
				a.fail("with one condition, a message is said to fail number %d", sum.Fails)
			case !fails(whole[i], c):
				a.fail("%v is said to fail the condition %s, and doesn't, or nobody can know", sum.ID, say(c))
			}
		}
	}
	s.close(a)
}

func say(c source.Condition) string {
	switch c.Field {
	case "flags":
		return fmt.Sprintf("flags %s %s", c.Op, c.Flag)
	case "internal_date":
		return fmt.Sprintf("internal_date %s %v", c.Op, c.Time)
	}
	return fmt.Sprintf("%s %s %d", c.Field, c.Op, c.Size)
}

// fails reports whether a message that was listed in full surely fails c.
func fails(s message.Summary, c source.Condition) bool {
	var order int
	switch {
	case c.Field == "size" && s.Have.Has(message.NeedSize):
		order = int(min(1, max(-1, s.Size-c.Size)))
	case c.Field == "internal_date" && s.Have.Has(message.NeedInternalDate) && !s.InternalDate.IsZero():
		order = s.InternalDate.Compare(c.Time)
	case c.Field == "flags" && s.Have.Has(message.NeedFlags):
		return slices.Contains(s.Flags, c.Flag) != (c.Op == "has")
	default:
		return false
	}
	holds := map[string]bool{"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}
	return !holds[c.Op]
}

func finishes(a *attempt) {
	s := openSource(a, a.settings())
	f, ok := s.Source.(source.Finisher)
	if !ok {
		if s.Finishes {
			a.fail("Opened.Finishes is set, and the source has no Finish")
		}
		a.leave("it has no Finish")
	}
	box := s.box(a)
	before := ids(s.list(a, box.Name, listLimit))
	told := before[:min(4, len(before))]
	for range 2 {
		seen := map[message.ID]bool{}
		for done, err := range f.Finish(a.ctx, source.FinishRequest{Mailbox: box.Name, IDs: told}) {
			a.must(err, "Finish, only told")
			if seen[done.ID] || !slices.Contains(told, done.ID) {
				a.fail("Finish answered %v twice, or unasked", done.ID)
			}
			seen[done.ID] = true
			if done.Err != nil {
				a.fail("Finish of %v, only told: %s", done.ID, explain(done.Err))
			}
		}
		if len(seen) != len(told) {
			a.fail("Finish answered %d of %d ids", len(seen), len(told))
		}
	}
	gone := invented(before)
	for done, err := range f.Finish(a.ctx, source.FinishRequest{Mailbox: box.Name, IDs: []message.ID{gone}}) {
		a.must(err, "Finish of one that isn't there")
		if done.Err != nil {
			a.class(done.Err, fault.Gone, "Finish of one that isn't there")
		}
	}
	if s.Finishes {
		return // its own memory has moved on: it may list less now
	}
	if after := ids(s.list(a, box.Name, listLimit)); !slices.Equal(before, after) {
		a.fail("Finish without an action changed what is on the server: %d messages before, %d after", len(before), len(after))
	}
	s.close(a)
}
