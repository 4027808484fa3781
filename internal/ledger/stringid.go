package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
)

// batch is how many rows one statement reads or writes: a call through
// database/sql costs as much as several rows. The driver's cost of binding
// grows with the square of the arguments, so that more aren't cheaper.
const batch = 32

// querier is the database, or a transaction on it.
type querier interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// stringID is what the ledger tells string ids apart by.
type stringID struct {
	box        Box
	uidl, hash string
	ordinal    uint32
}

func stringOf(box Box, id message.ID) stringID {
	return stringID{box, id.UIDL, id.HeaderHash, id.Ordinal}
}

// findStrings calls found for each of the ids that has a number, with its
// place in ids.
func findStrings(ctx context.Context, q querier, ids []stringID, found func(i int, num uint32)) error {
	var find *sql.Stmt
	args := make([]any, 4*batch)
	for first := 0; first < len(ids); first += batch {
		if find == nil {
			var err error
			if find, err = q.PrepareContext(ctx, findQuery()); err != nil {
				return err
			}
			defer find.Close()
		}
		for i := range batch { // the last batch ends with ids that don't exist
			copy(args[4*i:], []any{nil, nil, nil, nil})
			if first+i < len(ids) {
				id := &ids[first+i]
				copy(args[4*i:], []any{id.box, id.uidl, id.hash, id.ordinal})
			}
		}
		if err := findBatch(ctx, find, args, func(i int, num uint32) { found(first+i, num) }); err != nil {
			return err
		}
	}
	return nil
}

// findQuery looks up a whole batch. CROSS JOIN keeps SQLite from scanning
// string_id instead.
func findQuery() string {
	var b strings.Builder
	b.WriteString("WITH want (i, box, uidl, hash, ordinal) AS (VALUES ")
	for i := range batch {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "(%d,?,?,?,?)", i)
	}
	b.WriteString(`) SELECT want.i, s.num FROM want CROSS JOIN string_id s
		ON s.box = want.box AND s.uidl = want.uidl AND s.header_hash = want.hash AND s.ordinal = want.ordinal`)
	return b.String()
}

func findBatch(ctx context.Context, find *sql.Stmt, args []any, found func(i int, num uint32)) error {
	rows, err := find.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var i int
		var num uint32
		if err := rows.Scan(&i, &num); err != nil {
			return err
		}
		found(i, num)
	}
	return rows.Err()
}

// tuples returns n tuples of placeholders: "(?,?),(?,?)".
func tuples(n, width int) string {
	one := "(" + strings.Repeat("?,", width-1) + "?)"
	return strings.Repeat(one+",", n-1) + one
}

// keys returns the key of each id; 0 for a string id that the ledger doesn't
// know.
func (l *Ledger) keys(ctx context.Context, box Box, ids []message.ID) ([]int64, error) {
	keys := make([]int64, len(ids))
	var asked []stringID
	var at []int
	for i, id := range ids {
		if id.UID != 0 {
			keys[i] = box.key(id.UID)
			continue
		}
		asked, at = append(asked, stringOf(box, id)), append(at, i)
	}
	err := findStrings(ctx, l.db, asked, func(i int, num uint32) { keys[at[i]] = box.stringKey(num) })
	return keys, l.wrap(err, "look ids up")
}
