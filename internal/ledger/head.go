package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"slices"
)

// Head is what a run asks of a ledger before it asks of messages, and all that
// a mailbox without messages leaves there: targets, mailboxes, and where they
// stand. It is small, and can be asked and changed without a file: a task that
// finds nothing to do never opens one. Its own methods aren't safe for
// concurrent use.
type Head struct {
	Targets   []HeadTarget  `json:"targets,omitempty"`
	Boxes     []HeadBox     `json:"boxes,omitempty"`
	Accounts  []HeadAccount `json:"accounts,omitempty"`
	Mailboxes []HeadMailbox `json:"mailboxes,omitempty"`
}

// headTables are the tables that a Head holds whole.
var headTables = []string{"target", "box", "account", "mailbox"}

// HeadTarget is where a sink writes.
type HeadTarget struct {
	ID         TargetID `json:"id"`
	Sink       string   `json:"sink"`
	Target     string   `json:"target"`
	Checkpoint []byte   `json:"checkpoint"` // nil: nothing was ever committed
	Dirty      bool     `json:"dirty,omitempty"`
	Known      bool     `json:"known,omitempty"`
}

// HeadBox is a mailbox of one UIDVALIDITY.
type HeadBox struct {
	Number      Box    `json:"number"`
	Source      string `json:"source"`
	Mailbox     string `json:"mailbox"`
	UIDValidity uint32 `json:"uid_validity,omitempty"`
	Strings     uint32 `json:"strings,omitempty"` // string ids that have numbers
	Content     string `json:"content,omitempty"`
	Flags       string `json:"flags,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Tally       string `json:"tally,omitempty"` // JSON, as the ledger has it
	Superseded  bool   `json:"superseded,omitempty"`
	Messages    bool   `json:"messages,omitempty"` // something is known of its messages
}

// HeadAccount is an Account as the ledger has it. Times are milliseconds
// since 1970.
type HeadAccount struct {
	Source string `json:"source"`
	Run    int64  `json:"run"`
	Began  int64  `json:"began"`
	Ended  int64  `json:"ended,omitempty"`
	State  State  `json:"state"`
	Until  int64  `json:"until,omitempty"`
	Err    string `json:"error,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// HeadMailbox is a Mailbox as the ledger has it.
type HeadMailbox struct {
	Source      string          `json:"source"`
	Name        string          `json:"mailbox"`
	Run         int64           `json:"run"`
	State       State           `json:"state"`
	UIDValidity uint32          `json:"uid_validity,omitempty"`
	Server      int64           `json:"server"`
	Listed      int64           `json:"listed"`
	Sums        json.RawMessage `json:"sums"`
}

// Clone returns a Head that shares nothing that is ever changed in place.
func (h *Head) Clone() Head {
	return Head{slices.Clone(h.Targets), slices.Clone(h.Boxes), slices.Clone(h.Accounts), slices.Clone(h.Mailboxes)}
}

// Target is Ledger.Target.
func (h *Head) Target(sink, target string) Target {
	var last TargetID
	for _, t := range h.Targets {
		if t.Sink == sink && t.Target == target {
			return Target{t.ID, t.Checkpoint, t.Dirty, t.Known}
		}
		last = max(last, t.ID)
	}
	h.Targets = append(h.Targets, HeadTarget{ID: last + 1, Sink: sink, Target: target})
	return Target{ID: last + 1}
}

// TargetOf returns the target of that number, nil when there is none.
func (h *Head) TargetOf(id TargetID) *HeadTarget {
	for i := range h.Targets {
		if h.Targets[i].ID == id {
			return &h.Targets[i]
		}
	}
	return nil
}

// Box is Ledger.Box.
func (h *Head) Box(source, mailbox string, uidValidity uint32) Box {
	var last Box
	for _, b := range h.Boxes {
		if b.Source == source && b.Mailbox == mailbox && b.UIDValidity == uidValidity {
			return b.Number
		}
		last = max(last, b.Number)
	}
	h.Boxes = append(h.Boxes, HeadBox{Number: last + 1, Source: source, Mailbox: mailbox, UIDValidity: uidValidity})
	return last + 1
}

// BoxOf returns the mailbox of that number, nil when there is none.
func (h *Head) BoxOf(number Box) *HeadBox {
	for i := range h.Boxes {
		if h.Boxes[i].Number == number {
			return &h.Boxes[i]
		}
	}
	return nil
}

// SavedState is Ledger.SavedState.
func (h *Head) SavedState(source, mailbox string, uidValidity uint32) (BoxState, error) {
	for _, b := range h.Boxes {
		if b.Source == source && b.Mailbox == mailbox && b.UIDValidity == uidValidity {
			s := BoxState{Content: b.Content, Flags: b.Flags, Fingerprint: b.Fingerprint}
			err := parseTally(b.Tally, &s.Tally)
			return s, err
		}
	}
	return BoxState{}, nil
}

// Carries reports whether an epoch is one of which a Head has all.
func Carries(e Epoch) bool { return len(e.Settled) == 0 && len(e.Spent) == 0 }

// Commit is Ledger.Commit of an epoch that a Head carries.
func (h *Head) Commit(e Epoch) error {
	for id, cp := range e.Checkpoints {
		if t := h.TargetOf(id); t != nil {
			t.Checkpoint = append([]byte{}, cp...)
		}
	}
	for number, s := range e.Boxes {
		text, err := json.Marshal(s.Tally)
		if err != nil {
			return err
		}
		if b := h.BoxOf(number); b != nil {
			b.Content, b.Flags, b.Fingerprint, b.Tally = s.Content, s.Flags, s.Fingerprint, string(text)
		}
	}
	for i := range e.Mailboxes {
		if err := h.standMailbox(&e.Mailboxes[i]); err != nil {
			return err
		}
	}
	for _, a := range e.Accounts {
		h.standAccount(a)
	}
	return nil
}

func (h *Head) standMailbox(m *Mailbox) error {
	i, there := slices.BinarySearchFunc(h.Mailboxes, m, func(have HeadMailbox, m *Mailbox) int {
		return cmp.Or(cmp.Compare(have.Source, m.Source), cmp.Compare(have.Name, m.Name))
	})
	if there && m.Unchanged {
		h.Mailboxes[i].Run, h.Mailboxes[i].State, h.Mailboxes[i].Server = m.Run, m.State, m.Server
		return nil
	}
	raw, err := m.sums()
	if err != nil {
		return err
	}
	row := HeadMailbox{m.Source, m.Name, m.Run, m.State, m.UIDValidity, m.Server, m.Listed, raw}
	if there {
		h.Mailboxes[i] = row
	} else {
		h.Mailboxes = slices.Insert(h.Mailboxes, i, row)
	}
	return nil
}

func (h *Head) standAccount(a Account) {
	row := HeadAccount{a.Source, a.Run, toMillis(a.Began), toMillis(a.Ended), a.State, toMillis(a.Until), a.Err, a.Hint}
	i, there := slices.BinarySearchFunc(h.Accounts, a, func(have HeadAccount, a Account) int { return cmp.Compare(have.Source, a.Source) })
	if there {
		h.Accounts[i] = row
	} else {
		h.Accounts = slices.Insert(h.Accounts, i, row)
	}
	if a.State != Complete {
		return // it may not have come to ask for all its mailboxes
	}
	for i := range h.Mailboxes {
		if m := &h.Mailboxes[i]; m.Source == a.Source && m.Run < a.Run {
			m.State = Gone
		}
	}
}

// Standing returns where accounts and mailboxes stand, by name.
func (h *Head) Standing() (accounts []Account, mailboxes []Mailbox, err error) {
	for _, a := range h.Accounts {
		accounts = append(accounts, Account{a.Source, a.Run, fromMillis(a.Began), fromMillis(a.Ended), a.State, fromMillis(a.Until), a.Err, a.Hint})
	}
	for _, row := range h.Mailboxes {
		m := Mailbox{Source: row.Source, Name: row.Name, Run: row.Run, State: row.State, UIDValidity: row.UIDValidity, Server: row.Server, Listed: row.Listed}
		if err := m.setSums(row.Sums); err != nil {
			return nil, nil, err
		}
		mailboxes = append(mailboxes, m)
	}
	return accounts, mailboxes, nil
}

// head reads the Head as it is within a transaction.
func (l *Ledger) head(ctx context.Context, tx *sql.Tx) (Head, error) {
	var h Head
	each := func(query string, scan func(*sql.Rows) error) error {
		rows, err := tx.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	err := errors.Join(
		each("SELECT id, sink, target, checkpoint IS NOT NULL, checkpoint, dirty, known FROM target ORDER BY id", func(rows *sql.Rows) error {
			var t HeadTarget
			var committed bool
			err := rows.Scan(&t.ID, &t.Sink, &t.Target, &committed, &t.Checkpoint, &t.Dirty, &t.Known)
			if committed && t.Checkpoint == nil {
				t.Checkpoint = []byte{} // the driver reads an empty value as none
			}
			h.Targets = append(h.Targets, t)
			return err
		}),
		each("SELECT id, source, mailbox, uid_validity, strings, content, flags, fingerprint, tally, superseded FROM box ORDER BY id", func(rows *sql.Rows) error {
			var b HeadBox
			err := rows.Scan(&b.Number, &b.Source, &b.Mailbox, &b.UIDValidity, &b.Strings, &b.Content, &b.Flags, &b.Fingerprint, &b.Tally, &b.Superseded)
			h.Boxes = append(h.Boxes, b)
			return err
		}),
		each("SELECT source, run, began, ended, state, until, error, hint FROM account ORDER BY source", func(rows *sql.Rows) error {
			var a HeadAccount
			err := rows.Scan(&a.Source, &a.Run, &a.Began, &a.Ended, &a.State, &a.Until, &a.Err, &a.Hint)
			h.Accounts = append(h.Accounts, a)
			return err
		}),
		each("SELECT source, mailbox, run, state, uid_validity, server, listed, sums FROM mailbox ORDER BY source, mailbox", func(rows *sql.Rows) error {
			var m HeadMailbox
			var text string
			err := rows.Scan(&m.Source, &m.Name, &m.Run, &m.State, &m.UIDValidity, &m.Server, &m.Listed, &text)
			m.Sums = json.RawMessage(text)
			h.Mailboxes = append(h.Mailboxes, m)
			return err
		}))
	for i := range h.Boxes {
		b := &h.Boxes[i]
		if err == nil {
			err = tx.QueryRowContext(ctx, hasMessages, b.Number.key(0), b.Number.stringKey(math.MaxUint32)).Scan(&b.Messages)
		}
	}
	return h, err
}

// setHead replaces what a Head holds.
func setHead(ctx context.Context, tx *sql.Tx, h *Head) error {
	w := &writer{ctx: ctx, tx: &transaction{sql: tx}}
	for _, table := range headTables {
		if err := w.exec("DELETE FROM " + table); err != nil {
			return err
		}
	}
	for _, t := range h.Targets {
		if err := w.exec("INSERT INTO target VALUES (?, ?, ?, ?, ?, ?)", t.ID, t.Sink, t.Target, t.Checkpoint, t.Dirty, t.Known); err != nil {
			return err
		}
	}
	for _, b := range h.Boxes {
		if err := w.exec("INSERT INTO box VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			b.Number, b.Source, b.Mailbox, b.UIDValidity, b.Strings, b.Content, b.Flags, b.Fingerprint, b.Tally, b.Superseded); err != nil {
			return err
		}
	}
	for _, a := range h.Accounts {
		if err := w.exec("INSERT INTO account VALUES (?, ?, ?, ?, ?, ?, ?, ?)", a.Source, a.Run, a.Began, a.Ended, a.State, a.Until, a.Err, a.Hint); err != nil {
			return err
		}
	}
	for _, m := range h.Mailboxes {
		if err := w.exec("INSERT INTO mailbox VALUES (?, ?, ?, ?, ?, ?, ?, ?)", m.Source, m.Name, m.Run, m.State, m.UIDValidity, m.Server, m.Listed, string(m.Sums)); err != nil {
			return err
		}
	}
	return nil
}
