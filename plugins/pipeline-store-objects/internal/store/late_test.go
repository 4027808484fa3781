package store_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/target"
)

// What a run that was killed had on its way arrives after the next run has
// written: the manifest's parts that count stay as they are.
func TestAPartThatComesLate(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	for _, kind := range kinds[1:] {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			path, o := where(t, kind), target.Owner{Sink: "archive", Pipeline: "p1", Store: socket}
			killed := open(t, path, o, nil)
			write(t, killed, 1, "1.eml", octets(10))
			flush(t, killed) // the ledger never hears of it
			if err := killed.Close(); err != nil {
				t.Fatal(err)
			}
			b := bucket(t, path, o)
			late := map[string][]byte{}
			for l, err := range b.List(t.Context(), target.Books+"/manifest-", false) {
				if err != nil {
					t.Fatal(err)
				}
				if late[l.Key], err = b.Read(t.Context(), l.Key); err != nil {
					t.Fatal(err)
				}
			}
			next := open(t, path, o, nil)
			write(t, next, 2, "another.eml", octets(20))
			cp := flush(t, next)
			if err := next.Close(); err != nil {
				t.Fatal(err)
			}
			for key, rows := range late {
				if err := b.Put(t.Context(), key, bytes.NewReader(rows), int64(len(rows)), objects.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			o.Known = true
			if err := open(t, path, o, cp).Close(); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"another.eml": "20 " + sum(octets(20))}
			if got := rows(t, path, o, cp); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the manifest has %v, want %v", got, want)
			}
		})
	}
}
