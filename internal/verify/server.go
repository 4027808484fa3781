package verify

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// page is how many ids are listed at once.
const page = 4096

// mostNamed bounds how many new messages of a mailbox are told one by one:
// before a first export that is all of them.
const mostNamed = 1000

// askServers holds the table against what the servers list now, some at once.
func (v *verifier) askServers(ctx context.Context) []SourceResult {
	results := make([]SourceResult, len(v.o.Plan.Sources))
	slots := make(chan struct{}, max(1, v.o.Plan.Concurrency))
	var wg sync.WaitGroup
	for i := range v.o.Plan.Sources {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s := &v.o.Plan.Sources[i]
			results[i].Source = s.Name
			if err := v.askServer(ctx, s, &results[i]); err != nil {
				results[i].Error = err.Error()
			}
		})
	}
	wg.Wait()
	return results
}

func (v *verifier) askServer(ctx context.Context, s *plan.Source, r *SourceResult) (err error) {
	opened, err := v.o.OpenSource(ctx, s)
	if err != nil {
		return err
	}
	defer opened.Source.Close()
	there := map[string]bool{}
	var boxes []message.Mailbox
	for m, err := range opened.Source.Mailboxes(ctx) {
		if err != nil {
			return fmt.Errorf("list the mailboxes: %w", err)
		}
		there[m.Name] = true
		boxes = append(boxes, m)
	}
	boxes, _ = s.Take(boxes)
	asked := map[string]bool{}
	for _, m := range boxes {
		err := v.askMailbox(ctx, s, opened.Source, m, plan.Among(m, boxes), r)
		switch {
		case err == nil:
			asked[m.Name] = true
			r.Mailboxes++
		case fault.Is(err, fault.Gone):
			there[m.Name] = false
		default:
			return fmt.Errorf("mailbox %s: %w", m.Name, err)
		}
	}
	for n, b := range v.table.boxes {
		if b.source != s.Name || there[b.mailbox] {
			continue
		}
		if count := v.known(int32(n)); count > 0 {
			v.found(-1, Finding{Kind: Missing, Place: Server, Source: b.source, Mailbox: b.mailbox, Count: count},
				"the server doesn't have this mailbox any more")
		}
	}
	return nil
}

// known counts the messages of a mailbox that the ledger has.
func (v *verifier) known(box int32) (count int64) {
	for i := range v.table.items {
		if it := &v.table.items[i]; it.box == box && it.known && !it.vanished && !it.removed {
			count++
		}
	}
	return count
}

// askMailbox lists one mailbox.
func (v *verifier) askMailbox(ctx context.Context, s *plan.Source, from source.Source, m message.Mailbox, among []string, r *SourceResult) error {
	var after *message.ID
	var state message.MailboxState
	var fresh []message.ID
	var extra int64
	validity := m.State.UIDValidity
	for {
		req := source.ListRequest{Mailbox: m.Name, After: after, Limit: page, Among: among, State: func(st message.MailboxState) { state = st }}
		var ids []message.ID
		for sum, err := range from.List(ctx, req) {
			if err != nil {
				return err
			}
			sum.ID.Source = s.Name
			ids = append(ids, sum.ID)
		}
		if state.UIDValidity != 0 {
			validity = state.UIDValidity
		} else if len(ids) > 0 && ids[0].UIDValidity != 0 {
			validity = ids[0].UIDValidity
		}
		r.Listed += int64(len(ids)) // one goroutine a source
		unknown, err := v.listed(ctx, ids)
		if err != nil {
			return err
		}
		extra += int64(len(unknown))
		fresh = append(fresh, unknown[:min(len(unknown), mostNamed-len(fresh))]...)
		if len(ids) < page {
			break
		}
		after = &ids[len(ids)-1]
	}
	if v.otherValidity(s.Name, m.Name, validity) {
		return nil
	}
	v.goneFrom(s.Name, m.Name, validity)
	if s.Limit > 0 {
		return nil // what is beyond the limit isn't missing
	}
	return v.newOn(ctx, from, m.Name, fresh, extra)
}

// listed notes what the server has, and returns what the ledger never heard
// of.
func (v *verifier) listed(ctx context.Context, ids []message.ID) (unknown []message.ID, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		if n := v.table.now(id); n >= 0 {
			v.table.items[n].listed = true // one that the ledger lost is told as that
		} else {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) == 0 {
		return nil, nil
	}
	// What a stage dropped stands in the ledger, not in the table.
	id := unknown[0]
	box, err := v.o.Ledger.Box(ctx, id.Source, id.Mailbox, id.UIDValidity)
	if err != nil {
		return nil, err
	}
	entries, err := v.o.Ledger.Lookup(ctx, box, unknown)
	if err != nil {
		return nil, err
	}
	at := -1
	return slices.DeleteFunc(unknown, func(message.ID) bool {
		at++
		return len(entries[at].Fates) > 0
	}), nil
}

// otherValidity tells of a mailbox whose ids the server gave out anew: none of
// them can be compared.
func (v *verifier) otherValidity(source, mailbox string, now uint32) bool {
	if _, ok := v.table.named[boxKey{source, mailbox, now}]; ok {
		return false
	}
	for n, b := range v.table.boxes {
		if b.source != source || b.mailbox != mailbox {
			continue
		}
		if count := v.known(int32(n)); count > 0 {
			v.found(-1, Finding{Kind: Changed, Place: Server, Source: source, Mailbox: mailbox, Count: count},
				"UIDVALIDITY was %d and is %d: the server gave its messages new ids; run again, it matches them", b.validity, now)
			return true
		}
	}
	return false
}

// goneFrom tells of messages that the server doesn't list any more.
func (v *verifier) goneFrom(source, mailbox string, validity uint32) {
	box, ok := v.table.named[boxKey{source, mailbox, validity}]
	if !ok {
		return
	}
	for i := range v.table.items {
		it := &v.table.items[i]
		if it.box == box && it.known && !it.listed && !it.vanished && !it.removed {
			v.found(int32(i), Finding{Kind: Missing, Place: Server}, "the server doesn't list it any more")
		}
	}
}

// newOn tells of messages that are on the server only.
func (v *verifier) newOn(ctx context.Context, from source.Source, mailbox string, fresh []message.ID, extra int64) error {
	if len(fresh) == 0 {
		return nil
	}
	names := map[message.ID]*message.Header{}
	for chunk := range slices.Chunk(fresh, 256) {
		for sum, err := range from.List(ctx, source.ListRequest{Mailbox: mailbox, IDs: chunk, Needs: message.NeedHeaders}) {
			if err != nil {
				return err
			}
			sum.ID.Source = fresh[0].Source
			names[sum.ID] = sum.Header
		}
	}
	for _, id := range fresh {
		f := Finding{Kind: Extra, Place: Server, Source: id.Source, Mailbox: id.Mailbox, ID: idText(id)}
		describe(&f, names[id])
		v.found(-1, f, "the server has it, and the ledger doesn't know it: it isn't exported")
	}
	if more := extra - int64(len(fresh)); more > 0 {
		v.found(-1, Finding{Kind: Extra, Place: Server, Source: fresh[0].Source, Mailbox: mailbox, Count: more},
			"the server has %d more that aren't exported", more)
	}
	return nil
}
