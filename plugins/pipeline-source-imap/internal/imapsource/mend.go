package imapsource

import (
	"bytes"
	"context"
	"io"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// mend gets a page right that didn't come whole: what is missing is asked for
// again, by halves and at last one by one, so that one message that the
// server can't tell of, or that ends the connection, costs itself alone (I6).
func (l *lister) mend(ctx context.Context, page imapdata.Set, have []message.Summary, cause error) ([]message.Summary, error) {
	byUID := map[uint32]message.Summary{}
	keep := func(sums []message.Summary) {
		for _, s := range sums {
			if old, ok := byUID[s.ID.UID]; !ok || s.Have.Has(old.Have) {
				byUID[s.ID.UID] = s
			}
		}
	}
	missing := func(of imapdata.Set) (out imapdata.Set) {
		of.All(func(u uint32) bool {
			if s, ok := byUID[u]; !ok || l.vain <= 20 && !s.Have.Has(l.wanted()) {
				out.Add(u, u)
			}
			return true
		})
		return out
	}
	keep(have)
	deaths := map[uint32]int{}
	barren := 0 // messages in a row on which the connection ended
	work := []imapdata.Set{missing(page)}
	for first := true; len(work) > 0; first = false {
		if l.conn.Broken() || fault.Is(cause, fault.Throttled) {
			if err := l.reopen(ctx, cause); err != nil {
				return nil, err
			}
		}
		cause = nil
		set := work[len(work)-1]
		work = work[:len(work)-1]
		if len(set) == 0 {
			continue
		}
		if first {
			// What is gone by now isn't missing.
			there, _, err := searchUIDs(ctx, l.conn, "UID "+set.String())
			if err != nil && l.conn.Broken() {
				cause = err
				work = append(work, set)
				if deaths[0]++; deaths[0] > mailnet.MaxReconnects {
					return nil, err
				}
				continue
			}
			if err == nil {
				set = set.And(there)
			}
		}
		release := l.conn.Net().CloseOn(ctx)
		sums, err := l.collect(set, l.ask(set))
		release()
		keep(sums)
		cause = err
		if len(sums) > 0 {
			l.slow.Reset()
			barren = 0
		}
		left := missing(set)
		switch {
		case len(left) == 0:
		case fault.Is(err, fault.Throttled):
			work = append(work, left) // no message's fault
		case left.Count() == 1:
			u := left[0].First
			deaths[u]++
			if _, known := byUID[u]; known && !l.conn.Broken() {
				l.vain++
				continue
			}
			if deaths[u] < maxDeaths {
				work = append(work, left)
				continue
			}
			if l.conn.Broken() {
				if barren++; barren > maxHeld {
					return nil, fault.Wrap(fault.Unavailable, err, "list mailbox %s: the connection ended on each of %d messages in a row", l.req.Mailbox, barren)
				}
			}
			// It is there, and that is all that the server tells.
			if _, known := byUID[u]; !known {
				byUID[u] = l.summary(u)
			}
			l.log.Warn("the server tells nothing of a message", "mailbox", l.req.Mailbox, "uid", u, "cause", errText(err))
		default:
			half := left.Count() / 2
			lo := left.First(half)
			work = append(work, left.Above(lo[len(lo)-1].Last), lo)
		}
	}
	if l.conn.Broken() {
		if err := l.reopen(ctx, cause); err != nil {
			return nil, err
		}
	}
	var out []message.Summary
	page.All(func(u uint32) bool {
		if s, ok := byUID[u]; ok {
			out = append(out, s)
		}
		return true
	})
	return out, l.structures(ctx, out)
}

// structures reads the bodies of the messages whose structure the server
// sends in a form that can't be read.
func (l *lister) structures(ctx context.Context, sums []message.Summary) error {
	if !l.req.Needs.Has(message.NeedStructure) {
		return nil
	}
	for i := range sums {
		if sums[i].Structure != nil || sums[i].Have == 0 {
			continue
		}
		part, err := l.structure(ctx, sums[i].ID.UID)
		if err != nil {
			if l.conn.Broken() {
				if err := l.reopen(ctx, err); err != nil {
					return err
				}
			}
			continue
		}
		if part != nil {
			sums[i].Structure = part
			sums[i].Have |= message.NeedStructure
		}
	}
	return nil
}

func (l *lister) structure(ctx context.Context, uid uint32) (part *message.Part, err error) {
	_, err = l.conn.Do(ctx, "UID FETCH "+imapdata.Range{First: uid, Last: uid}.String()+" (UID BODY.PEEK[])", func(r *imapconn.Response) error {
		if r.Name != "FETCH" || part != nil {
			return nil
		}
		var body io.Reader = l.conn.Body()
		if !r.Streams {
			var it imapdata.Items
			it.Read(r.Data)
			if it.Section == nil {
				return nil
			}
			body = bytes.NewReader(it.Section)
		}
		p, _, err := message.ReadStructure(body)
		if err == nil {
			part = p
		}
		return err
	})
	return part, err
}

func errText(err error) string {
	if err == nil {
		return "no answer"
	}
	return err.Error()
}
