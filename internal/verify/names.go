package verify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

func lineText(b brokenLine) string { return fmt.Sprintf("line %d can't be read: %s", b.number, b.why) }

// describe fills in the name by which a person knows a message.
func describe(f *Finding, h *message.Header) {
	if h == nil {
		return
	}
	f.Subject, f.From = h.Subject(), h.Text("From")
	if from := h.Addresses("From"); len(from) > 0 && from[0].Address != "" {
		f.From = from[0].Address
	}
	if at, ok := h.Date(); ok {
		f.Date = at.Format(time.RFC3339)
	}
}

// nameAll gives the findings about messages their names: out of the mail
// itself where it is there, else out of an index, else out of the ledger. It
// costs a look at one file for each.
func (v *verifier) nameAll(ctx context.Context, all []Finding) error {
	open := map[int32][]*Finding{}
	for i := range all {
		f := &all[i]
		if f.item < 0 {
			continue
		}
		id := v.table.id(f.item)
		f.Source, f.Mailbox, f.ID = id.Source, id.Mailbox, idText(id)
		if f.Path == "" {
			f.Path = v.pathOf(ctx, f.Sink, f.item)
		}
		if f.Subject != "" || f.From != "" {
			continue
		}
		if h := v.mailHeader(ctx, f.item); h != nil {
			describe(f, h)
		} else {
			open[f.item] = append(open[f.item], f)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return v.namesFromIndex(ctx, open)
}

// pathOf returns the path that the ledger has of a message in a sink, or the
// manifest.
func (v *verifier) pathOf(ctx context.Context, sink string, n int32) string {
	for _, k := range v.sinks {
		if k.plan.Name != sink || k.plan.Prepared.Record || int(n) >= len(k.rows) {
			continue
		}
		r := &k.rows[n]
		if r.told != 0 {
			it := &v.table.items[n]
			if found, err := v.o.Ledger.Lookup(ctx, v.table.boxes[it.box].number, []message.ID{v.table.id(n)}); err == nil {
				for _, fate := range found[0].Fates {
					if fate.Target == k.target.ID && fate.Receipt != "" {
						return fate.Receipt
					}
				}
			}
		}
		if r.row {
			if row, err := k.files.Row(ctx, r.offset); err == nil {
				return row.Path
			}
		}
	}
	return ""
}

// maxHead bounds what is read of a mail for its name.
const maxHead = 256 << 10

// mailHeader returns the header of a message out of an EML that a sink has,
// nil when there is none that can be trusted.
func (v *verifier) mailHeader(ctx context.Context, n int32) *message.Header {
	for _, k := range v.sinks {
		if !k.eml || k.gone || k.plan.Prepared.Record || int(n) >= len(k.rows) || !k.rows[n].seen {
			continue
		}
		f, _, err := k.files.Open(ctx, v.pathOf(ctx, k.plan.Name, n))
		if err != nil {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(f, maxHead))
		f.Close()
		if err != nil {
			continue
		}
		end := len(b)
		for _, empty := range []string{"\r\n\r\n", "\n\n"} {
			if i := bytes.Index(b, []byte(empty)); i >= 0 {
				end = min(end, i+len(empty))
			}
		}
		if h := message.NewHeader(b[:end]); h.Subject() != "" || h.Text("From") != "" {
			return h
		}
	}
	return nil
}

// namesFromIndex looks the rest up in the indexes, with one reading of each.
func (v *verifier) namesFromIndex(ctx context.Context, open map[int32][]*Finding) error {
	wanted := map[string][]*Finding{}
	for n, list := range open {
		wanted[idText(v.table.recorded(n))] = list
	}
	for _, k := range v.sinks {
		if !k.plan.Prepared.Record || k.gone {
			continue
		}
		if k.index != nil {
			_ = k.index.Each(ctx, k.state, func(in io.Reader, _ bool) error { // who can't be asked names nobody
				namesFrom(ctx, in, wanted)
				return nil
			})
			continue
		}
		f, err := os.Open(k.plan.Prepared.Target)
		if err != nil {
			continue
		}
		namesFrom(ctx, f, wanted)
		f.Close()
	}
	return ctx.Err()
}

func namesFrom(ctx context.Context, in io.Reader, wanted map[string][]*Finding) {
	r := bufio.NewReader(in)
	for ctx.Err() == nil {
		text, err := r.ReadBytes('\n')
		if len(text) == 0 && err != nil {
			return
		}
		var l indexLine
		if json.Unmarshal(text, &l) != nil {
			continue // what is broken was told
		}
		for _, at := range wanted[l.ID] {
			at.Subject, at.Date = l.Subject, l.Date
			if len(l.From) > 0 {
				at.From = l.From[0].Address
			}
		}
	}
}
