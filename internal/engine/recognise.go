package engine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// recognition compares a mailbox whose ids its server has changed, all at
// once, with what the ledger knows by the former ids. A message with the same
// header and the same size is the same, if there is one on either side; where
// there are several, or sizes disagree, the octets tell: they are fetched,
// hashed and not written. Nothing is decided on a doubt: whatever isn't known
// again is new, and exported (I1).
type recognition struct {
	a       *account
	b       *box
	formers *ledger.Formers
	fresh   []freshID

	byMark map[uint64][]int // indices into formers.Messages
	bySize map[int64][]int  // of those whose header isn't known
	taken  map[int]bool
	found  []ledger.Recognised
}

// freshID is a listed message that the ledger doesn't know. It is small: a
// mailbox may have a million of them.
type freshID struct {
	mark    uint64
	size    int64 // -1 when the source doesn't tell
	uid     uint32
	strings *message.ID // where messages don't go by UIDs
}

func (r *recognition) id(f *freshID) message.ID {
	if f.strings != nil {
		return *f.strings
	}
	return message.ID{Source: r.a.plan.Name, Mailbox: r.b.name, UIDValidity: r.b.uidValidity, UID: f.uid}
}

// recognise is called with the first page of a listing. It reports whether the
// ledger now knows messages of it that it didn't before. The caller holds a
// lane.
func (a *account) recognise(ctx context.Context, b *box, sums []message.Summary, entries []ledger.Entry) (bool, error) {
	var formers *ledger.Formers
	var err error
	if sums[0].ID.UID != 0 {
		formers, err = a.e.ledger.OtherValidity(ctx, a.plan.Name, b.name, b.number)
	} else {
		for i := range entries {
			if len(entries[i].Fates) > 0 || len(entries[i].Suspects) > 0 {
				return false, nil // some ids are as they were: all are
			}
		}
		formers, err = a.e.ledger.OwnStrings(ctx, b.number)
	}
	if err != nil || len(formers.Messages) == 0 && len(formers.Boxes) == 0 {
		return false, err
	}
	r := &recognition{a: a, b: b, formers: formers, byMark: map[uint64][]int{}, bySize: map[int64][]int{}, taken: map[int]bool{}}
	if len(formers.Messages) > 0 {
		err = r.compare(ctx)
	}
	if err != nil {
		return false, err
	}
	if len(r.found) == 0 && len(formers.Boxes) == 0 {
		return false, nil // new messages in the place of old ones
	}
	faultpoint.Hit("engine.recognise")
	if err := a.e.ledger.Recognise(ctx, b.number, r.found, formers.Boxes); err != nil {
		return false, err
	}
	faultpoint.Hit("engine.recognised")
	r.tell()
	return len(r.found) > 0, nil
}

// tell tells the user what happened.
func (r *recognition) tell() {
	known, unknown := int64(len(r.found)), int64(len(r.fresh)-len(r.found))
	r.b.mu.Lock()
	r.b.recognised += known
	if len(r.formers.Boxes) > 0 {
		r.b.former = r.formers.Validity
	}
	r.b.mu.Unlock()
	what := "the server changed its unique ids"
	if r.b.uidValidity != 0 {
		what = fmt.Sprintf("UIDVALIDITY changed %d → %d", r.formers.Validity, r.b.uidValidity)
	}
	name := r.b.name
	if name == "" {
		name = "mailbox"
	}
	r.a.e.note(Event{Kind: AccountNote, Source: r.a.plan.Name, Mailbox: r.b.name, Count: known,
		Text: fmt.Sprintf("%s: %s: %s recognised, %s new", name, what, thousands(known), thousands(unknown))})
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (r *recognition) compare(ctx context.Context) error {
	for i := range r.formers.Messages {
		if m := &r.formers.Messages[i]; m.Mark != 0 {
			r.byMark[m.Mark] = append(r.byMark[m.Mark], i)
		} else if m.Octets >= 0 {
			r.bySize[m.Octets] = append(r.bySize[m.Octets], i)
		}
	}
	if err := r.list(ctx); err != nil {
		return err
	}
	type kind struct {
		mark uint64
		size int64
	}
	alike := map[kind]int{}
	for i := range r.fresh {
		alike[kind{r.fresh[i].mark, r.fresh[i].size}]++
	}
	var unsure, blind []*freshID
	for i := range r.fresh {
		f := &r.fresh[i]
		same, others := r.candidates(f)
		switch {
		case len(same) == 1 && alike[kind{f.mark, f.size}] == 1:
			r.match(f, same[0])
		case !others && len(same) > 0 && !slices.ContainsFunc(same, func(i int) bool { return r.formers.Messages[i].Octets >= 0 }):
			blind = append(blind, f)
		case len(same) > 0 || others:
			unsure = append(unsure, f)
		}
	}
	r.pair(blind)
	return r.hash(ctx, unsure)
}

// candidates returns the former messages of the same header and size, and
// whether there are others that may be it.
func (r *recognition) candidates(f *freshID) (same []int, others bool) {
	if f.mark == 0 {
		// Without a header, only the octets tell.
		return nil, true
	}
	for _, i := range r.byMark[f.mark] {
		// Of a message whose body nobody wanted, the header is all that was
		// exported.
		if octets := r.formers.Messages[i].Octets; octets == f.size || octets < 0 || f.size < 0 {
			same = append(same, i)
		} else {
			others = true // sizes are estimates on some servers
		}
	}
	return same, others || len(r.bySize[f.size]) > 0
}

func (r *recognition) match(f *freshID, i int) {
	r.taken[i] = true
	r.found = append(r.found, ledger.Recognised{Key: r.formers.Messages[i].Key, ID: r.id(f)})
}

// list lists the whole mailbox with headers and sizes, as far as the source
// has them, and keeps what the ledger doesn't know.
func (r *recognition) list(ctx context.Context) error {
	req := source.ListRequest{
		Mailbox: r.b.name, Needs: (message.NeedHeaders | message.NeedSize) & r.a.plan.Provides, Limit: pageLong, Among: r.b.among,
	}
	for !r.a.e.stopped() {
		sums, more, err := r.a.summaries(ctx, r.b, req, goingOn)
		if err != nil || len(sums) == 0 {
			return err
		}
		ids := make([]message.ID, len(sums))
		for i := range sums {
			ids[i] = sums[i].ID
		}
		entries, err := r.a.e.ledger.Lookup(ctx, r.b.number, ids)
		if err != nil {
			return err
		}
		for i := range sums {
			if len(entries[i].Fates) > 0 {
				continue
			}
			f := freshID{size: -1, uid: ids[i].UID}
			if ids[i].UID == 0 {
				f.strings = &ids[i]
			}
			if sums[i].Have.Has(message.NeedSize) {
				f.size = sums[i].Size
			}
			if sums[i].Header != nil {
				f.mark = ledger.Mark(sums[i].Header.Raw())
			}
			r.fresh = append(r.fresh, f)
		}
		if !more {
			return nil
		}
		req.After = &ids[len(ids)-1]
	}
	return errStopped
}

// errStopped ends a comparison that the user didn't wait for: it is made again
// by the next run.
var errStopped = fault.New(fault.Unavailable, "stopped while the mailbox was being compared")

// hash fetches messages that the header can't tell, and compares their octets.
func (r *recognition) hash(ctx context.Context, unsure []*freshID) error {
	if len(unsure) == 0 {
		return nil
	}
	// Any that isn't taken yet may be it: a server may change a header, too.
	var keys []int64
	var at []int
	for i := range r.formers.Messages {
		if !r.taken[i] && r.formers.Messages[i].Octets >= 0 {
			keys, at = append(keys, r.formers.Messages[i].Key), append(at, i)
		}
	}
	sums, err := r.a.e.ledger.Hashes(ctx, keys)
	if err != nil {
		return err
	}
	byHash := map[string][]int{}
	for i, sum := range sums {
		if sum != nil {
			byHash[string(sum)] = append(byHash[string(sum)], at[i])
		}
	}
	open := make(map[message.ID]*freshID, len(unsure))
	ids := make([]message.ID, len(unsure))
	for i, f := range unsure {
		ids[i] = r.id(f)
		open[ids[i]] = f
	}
	h := sha256.New()
	for f, err := range r.a.source.Fetch(ctx, source.FetchRequest{Mailbox: r.b.name, Needs: message.NeedBody, IDs: r.batches(ids)}) {
		if err != nil {
			return fmt.Errorf("mailbox %s: compare with what is exported: %w", r.b.name, err)
		}
		f.ID.Source = r.a.plan.Name
		asked := open[f.ID]
		if asked == nil || f.Err != nil || f.Message == nil || f.Message.Body == nil {
			continue // whatever is wrong with it, the export finds
		}
		h.Reset()
		n, err := io.Copy(h, f.Message.Body)
		r.a.budget.spend(n)
		if err != nil {
			continue
		}
		if same := byHash[string(h.Sum(nil))]; len(same) > 0 {
			byHash[string(h.Sum(nil))] = same[1:]
			r.match(asked, same[0])
			delete(open, f.ID)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if r.a.e.stopped() {
		return errStopped
	}
	return nil
}

// pair takes messages of which no octets were ever exported for former ones of
// the same header: nothing else of them was exported, and nothing else tells
// them apart.
func (r *recognition) pair(blind []*freshID) {
	byMark := map[uint64][]*freshID{}
	for _, f := range blind {
		byMark[f.mark] = append(byMark[f.mark], f)
	}
	for mark, fresh := range byMark {
		same := r.byMark[mark]
		for n, f := range fresh[:min(len(fresh), len(same))] { // both in the order of their ids
			r.match(f, same[n])
		}
	}
}

// batches hands out ids as a fetch pulls them.
func (r *recognition) batches(ids []message.ID) iter.Seq[[]message.ID] {
	return func(yield func([]message.ID) bool) {
		for some := range slices.Chunk(ids, batchFirst) {
			if r.a.e.stopped() || !yield(some) {
				return
			}
		}
	}
}
