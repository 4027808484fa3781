package browse

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/rivo/uniseg"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/pkg/message"
)

// measured is how many rows are looked at to find how wide the columns are.
const measured = 200

// gap is what stands between columns.
const gap = "  "

// Table writes messages in columns, for a person: as wide as the terminal, the
// attachments of a message below it.
type Table struct {
	out     *bufio.Writer
	fields  []Field
	width   int
	several bool // of several mailboxes: each has a heading

	widths []int // nil until they are known
	held   []tableRow
	box    string
	begun  bool
}

type tableRow struct {
	box         string
	cells       []string
	attachments []expression.Attachment
}

// NewTable returns a writer of columns for a terminal so many places wide,
// 60 at least.
// several says that messages of several mailboxes come.
func NewTable(w io.Writer, fields []Field, width int, several bool) *Table {
	return &Table{out: bufio.NewWriter(w), fields: fields, width: max(width, 60), several: several}
}

// Message implements Writer.
func (t *Table) Message(s *message.Summary) error {
	if !t.begun {
		t.fields, t.begun = suited(t.fields, s), true
	}
	row := tableRow{box: s.ID.Mailbox}
	for _, f := range t.fields {
		v, ok := f.Value(s)
		if f.Type == "attachments" {
			row.attachments, _ = v.([]expression.Attachment)
			row.cells = append(row.cells, "")
			continue
		}
		row.cells = append(row.cells, tableCell(&f, v, ok))
	}
	if t.widths == nil && len(t.held) < measured {
		t.held = append(t.held, row)
		return nil
	}
	if err := t.measure(); err != nil {
		return err
	}
	return t.row(row)
}

func tableCell(f *Field, v any, ok bool) string {
	if !ok {
		return "-"
	}
	if n, isInt := v.(int); isInt && f.Name == "size" {
		return Size(int64(n))
	}
	return cell(v, false)
}

// measure finds the columns' widths from the rows that are held, and writes
// those. What is too much is taken from the widest columns of text.
func (t *Table) measure() error {
	if t.widths != nil {
		return nil
	}
	t.widths = make([]int, len(t.fields))
	shown := -1 // what the gaps take, too
	for i, f := range t.fields {
		if f.Type == "attachments" {
			continue
		}
		t.widths[i] = uniseg.StringWidth(heading(&f))
		for _, r := range t.held {
			t.widths[i] = max(t.widths[i], uniseg.StringWidth(r.cells[i]))
		}
		shown += t.widths[i] + len(gap)
	}
	for over := shown + 1 - len(gap) - t.width; over > 0; over-- {
		widest := -1
		for i, f := range t.fields {
			if (f.Type == "text" || f.Type == "list") && t.widths[i] > 8 && (widest < 0 || t.widths[i] > t.widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		t.widths[widest]--
	}
	if len(t.held) > 0 {
		if err := t.line(func(i int) string { return heading(&t.fields[i]) }); err != nil {
			return err
		}
	}
	for _, r := range t.held {
		if err := t.row(r); err != nil {
			return err
		}
	}
	t.held = nil
	return nil
}

// heading is a column's title.
func heading(f *Field) string {
	return strings.ToUpper(strings.ReplaceAll(f.Name, "_", " "))
}

func (t *Table) row(r tableRow) error {
	if t.several && r.box != t.box {
		t.box = r.box
		if _, err := fmt.Fprintf(t.out, "\n%s\n", cut(Safe(r.box), t.width)); err != nil {
			return err
		}
	}
	if err := t.line(func(i int) string { return r.cells[i] }); err != nil {
		return err
	}
	for _, a := range r.attachments {
		if _, err := fmt.Fprintf(t.out, "    + %s\n", cut(attachment(a, false), t.width-6)); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) line(text func(i int) string) error {
	var b strings.Builder
	first := true
	for i := range t.fields {
		if t.fields[i].Type == "attachments" {
			continue
		}
		if !first {
			b.WriteString(gap)
		}
		first = false
		b.WriteString(fit(text(i), t.widths[i], t.fields[i].Type == "number"))
	}
	_, err := fmt.Fprintln(t.out, strings.TrimRight(b.String(), " "))
	return err
}

// End implements Writer.
func (t *Table) End(p *Page) error {
	if err := t.measure(); err != nil {
		return err
	}
	where := ""
	if len(p.Mailboxes) == 1 {
		where = Safe(p.Mailboxes[0]) + ": "
	}
	if p.Shown > 0 {
		fmt.Fprintln(t.out)
	}
	fmt.Fprintf(t.out, "%s%s", where, counted(p.Total, "message", "messages"))
	if len(p.Mailboxes) != 1 {
		fmt.Fprintf(t.out, " in %s", counted(int64(len(p.Mailboxes)), "mailbox", "mailboxes"))
	}
	if p.Pages() > 1 {
		fmt.Fprintf(t.out, ", page %s of %s", Count(int64(p.Number)), Count(p.Pages()))
	}
	if n := p.Next(); n > 0 {
		fmt.Fprintf(t.out, "; go on with --page %d", n)
	}
	fmt.Fprintln(t.out)
	return t.out.Flush()
}

// Lines writes a message a line, its fields with tabs between: for other
// programs. No field holds a tab or a line end; one that a message lacks is
// empty.
type Lines struct {
	out     *bufio.Writer
	fields  []Field
	several bool
	begun   bool
	line    []byte
}

// NewLines returns a writer of lines. several says that messages of several
// mailboxes come: each line then begins with the mailbox.
func NewLines(w io.Writer, fields []Field, several bool) *Lines {
	return &Lines{out: bufio.NewWriter(w), fields: fields, several: several}
}

// Message implements Writer.
func (l *Lines) Message(s *message.Summary) error {
	if !l.begun {
		l.fields, l.begun = located(suited(l.fields, s), l.several), true
	}
	l.line = l.line[:0]
	for i, f := range l.fields {
		if i > 0 {
			l.line = append(l.line, '\t')
		}
		v, ok := f.Value(s)
		if !ok {
			v = nil
		}
		l.line = append(l.line, cell(v, true)...)
	}
	_, err := l.out.Write(append(l.line, '\n'))
	return err
}

// End implements Writer.
func (l *Lines) End(*Page) error { return l.out.Flush() }
