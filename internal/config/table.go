package config

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/pkg/spec"
)

// maxRows bounds a table, as maxNodes bounds the file.
const maxRows = 100_000

// table is the CSV file of a foreach.
type table struct {
	name    string // as it stands in the file
	columns []string
	rows    []row
}

// row is a line of a table; err is set when it can't be read, and is about this
// row alone.
type row struct {
	line   int // of its first octet, from 1
	values []string
	err    error
}

// at returns the row's place for errors.
func (t *table) at(r *row) string { return fmt.Sprintf("%s:%d", t.name, r.line) }

// cells returns the row by column.
func (t *table) cells(r *row) map[string]string {
	out := make(map[string]string, len(t.columns))
	for i, c := range t.columns {
		out[c] = r.values[i]
	}
	return out
}

// lacks says what is wrong with a column's name, "" when it is there.
func (t *table) lacks(column string) string {
	if slices.Contains(t.columns, column) {
		return ""
	}
	near := spec.DidYouMean(column, t.columns)
	if near == "" {
		near = "; it has " + strings.Join(t.columns, ", ")
	}
	return fmt.Sprintf("%s has no column %s%s", t.name, column, near)
}

var errUTF16 = errors.New("it is UTF-16: save it as CSV in UTF-8")

// readTable reads a CSV file (RFC 4180) with a header. A byte order mark is
// skipped; the separator is a comma, or a semicolon or tab when the header has
// no comma, as spreadsheets write it in half of Europe. A row that can't be
// read is one bad row: reading goes on with the next line. The error is about
// the whole table.
func readTable(name string, data []byte) (*table, error) {
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return nil, errUTF16
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	header, _, _ := bytes.Cut(data, []byte("\n"))
	comma := ','
	if !bytes.ContainsRune(header, ',') {
		for _, c := range ";\t" {
			if bytes.ContainsRune(header, c) {
				comma = c
			}
		}
	}
	t := &table{name: name}
	rest, line := data, 1
	for len(rest) > 0 {
		taken := t.read(rest, line, comma)
		if len(t.rows) > maxRows {
			return nil, fmt.Errorf("more than %d rows", maxRows)
		}
		line += bytes.Count(rest[:taken], []byte("\n"))
		rest = rest[taken:]
	}
	return t, t.heading()
}

// read reads rows until one is broken, and returns how many octets it took:
// with a broken row up to the end of the line where it begins, since a quote
// that isn't closed would take all that follows.
func (t *table) read(data []byte, line int, comma rune) (taken int) {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comma, r.FieldsPerRecord = comma, -1
	for {
		from := int(r.InputOffset())
		values, err := r.Read()
		if errors.Is(err, io.EOF) {
			return len(data)
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			from = after(data, bad.StartLine-1)
			t.add(row{line: line + bad.StartLine - 1, err: errors.New(quoteTrouble(bad))}, data[from:])
			return after(data, bad.StartLine)
		}
		if err != nil {
			return len(data) // a reader of octets has no other error
		}
		first, _ := r.FieldPos(0)
		t.add(row{line: line + first - 1, values: values}, data[from:r.InputOffset()])
	}
}

// after returns the offset behind so many line ends.
func after(data []byte, lines int) int {
	at := 0
	for range lines {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return len(data)
		}
		at += i + 1
	}
	return at
}

func quoteTrouble(e *csv.ParseError) string {
	if errors.Is(e.Err, csv.ErrBareQuote) {
		return `a quote stands within a value: put the whole value in quotes, and write "" for a quote`
	}
	return `a quoted value isn't closed, or goes on behind its quote: write "" for a quote`
}

func (t *table) add(r row, raw []byte) {
	switch {
	case t.columns == nil:
		t.columns = []string{}
		if r.err != nil {
			t.columns = append(t.columns, "") // refused by heading
		}
		for _, c := range r.values {
			t.columns = append(t.columns, strings.TrimSpace(c))
		}
		return
	case r.err != nil:
	case strings.Join(r.values, "") == "":
		return // a spreadsheet's empty lines
	case len(r.values) != len(t.columns):
		r.err = fmt.Errorf("the row has %d values, the header has %d", len(r.values), len(t.columns))
	case !utf8.Valid(raw):
		r.err = errors.New("the row isn't UTF-8: save the file as CSV in UTF-8")
	}
	t.rows = append(t.rows, r)
}

// heading checks the header.
func (t *table) heading() error {
	if len(t.columns) == 0 {
		return errors.New("it is empty: expected a header with the columns' names, and a row for each source")
	}
	seen := map[string]bool{}
	for i, c := range t.columns {
		switch {
		case c == "" || !utf8.ValidString(c):
			return fmt.Errorf("column %d of the header has no name", i+1)
		case seen[c]:
			return fmt.Errorf("the header has two columns %s", c)
		}
		seen[c] = true
	}
	return nil
}

// table reads the table of a source's foreach, beside the file.
func (b *builder) table(key, name string) *table {
	if name == "" {
		return nil // said already
	}
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(b.file), path)
	}
	data, err := b.readFile(path)
	if err != nil {
		b.at(key, "read %s: %v", name, cause(err))
		return nil
	}
	t, err := readTable(name, data)
	if err != nil {
		b.at(key, "%s: %v", name, err)
		return nil
	}
	return t
}
