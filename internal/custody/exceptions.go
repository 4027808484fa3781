package custody

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"slices"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// exceptions lists what isn't in the export though a server has it, and what
// couldn't be judged: dead letters by name, the rest by mailbox.
func exceptions(ctx context.Context, in Input) (rows int64, table []byte, err error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	put := func(cells ...string) {
		rows++
		err = w.Write(cells)
	}
	put("kind", "source", "mailbox", "count", "id", "subject", "from", "date", "where", "reason", "text")
	rows = 0
	one := func(kind, source, mailbox string, n int64, where, text string) {
		if n > 0 && err == nil {
			put(kind, source, mailbox, fmt.Sprint(n), "", "", "", "", where, "", text)
		}
	}
	for i := range in.Report.Accounts {
		a := &in.Report.Accounts[i]
		if a.Error != "" {
			one("account "+a.State, a.Source, "", 1, "", a.Error)
		}
		for j := range a.Mailboxes {
			m := &a.Mailboxes[j]
			switch m.State {
			case ledger.Excluded.String():
				one("mailbox excluded by the file", a.Source, m.Name, 1, "", "")
				continue
			case ledger.Complete.String():
			default:
				one("mailbox "+m.State, a.Source, m.Name, 1, "", m.Problem)
			}
			one("pending", a.Source, m.Name, m.Sum.Pending, "", "listed, and not exported yet")
			one("vanished", a.Source, m.Name, m.Sum.Vanished, "", "listed, and gone before they could be fetched")
			one("unrouted", a.Source, m.Name, m.Sum.Unrouted, "", "no sink takes them")
			for _, stage := range slices.Sorted(maps.Keys(m.Sum.Undecided)) {
				one("undecided", a.Source, m.Name, m.Sum.Undecided[stage], stage, "the stage couldn't judge them, since a value is absent; they were kept unless the file says otherwise")
			}
			for _, text := range m.BlindSpots {
				one("blind spot", a.Source, m.Name, 1, "", text)
			}
		}
	}
	if err != nil {
		return 0, nil, err
	}
	err = in.Ledger.Letters(ctx, func(id message.ID, _ string, l ledger.Letter) error {
		put("dead letter", id.Source, id.Mailbox, "1", id.String(), l.Subject, l.From, l.Date, l.Stage, l.Reason, l.Text)
		return err
	})
	w.Flush()
	if err == nil {
		err = w.Error()
	}
	return rows, b.Bytes(), err
}
