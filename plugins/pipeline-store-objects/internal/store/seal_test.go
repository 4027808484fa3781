package store_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
	"github.com/mailhaul/pipeline/test/s3server"
)

func seal(t *testing.T, files target.Files) {
	t.Helper()
	if err := target.Seal(t.Context(), files); err != nil {
		t.Fatalf("seal: %v", err)
	}
}

// TestASealedEpoch: the Flush after a Seal covers what was placed before it, in
// targets of all kinds, whatever is placed before the Flush and beside it. Opened
// at its checkpoint the target knows nothing of that (I2, I3).
func TestASealedEpoch(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		want := func(from, to int) map[string]string {
			out := map[string]string{}
			for n := from; n <= to; n++ {
				out[fmt.Sprintf("%d.eml", n)] = fmt.Sprintf("%d %s", n, sum(octets(n)))
			}
			return out
		}
		upTo := func(files target.Files, from, to int) {
			for n := from; n <= to; n++ {
				write(t, files, n, fmt.Sprintf("%d.eml", n), octets(n))
			}
		}
		files := open(t, path, o, nil)
		upTo(files, 1, 10)
		seal(t, files)
		upTo(files, 11, 20)
		var beside sync.WaitGroup
		beside.Go(func() { upTo(files, 21, 30) })
		first := flush(t, files)
		beside.Wait()
		if err := files.Committed(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		seal(t, files)
		upTo(files, 31, 40)
		flush(t, files) // the ledger never hears of it
		upTo(files, 41, 50)
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		o.Known = true
		files = open(t, path, o, first)
		if got := rows(t, path, o, first); fmt.Sprint(got) != fmt.Sprint(want(1, 10)) {
			t.Errorf("opened at the checkpoint of the first 10 files, the manifest has %v", got)
		}
		upTo(files, 11, 50)
		seal(t, files)
		cp := flush(t, files)
		if got := flush(t, files); string(got) != string(cp) { // with nothing in it, as a Flush always could be
			t.Errorf("a Flush of nothing covers %s, the one before %s", got, cp)
		}
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		if got := rows(t, path, o, cp); fmt.Sprint(got) != fmt.Sprint(want(1, 50)) {
			t.Errorf("in the end the manifest has %v", got)
		}
	})
}

// TestSealedTwice: the host flushes what is sealed before it seals again.
func TestSealedTwice(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		files := open(t, path, o, nil)
		defer files.Close()
		write(t, files, 1, "1.eml", octets(1))
		seal(t, files)
		if err := target.Seal(t.Context(), files); !fault.Is(err, fault.Bug) {
			t.Errorf("a second Seal: %v, want a bug of the host's", err)
		}
		flush(t, files) // an upload on its way would outlive the test's folder
	})
}

// TestAFlushWaitsForItsOwnUploads: those of the next epoch may take as long as
// they like, and what the server refuses of them is told by the next Flush.
func TestAFlushWaitsForItsOwnUploads(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	s3 := s3server.Start(t, "mail")
	path, o := s3.Address("mail/acme"), target.Owner{Sink: "archive", Pipeline: "p1", Store: socket}
	files := open(t, path, o, nil)
	flushed := make(chan struct{})
	s3.Fail(func(r *http.Request) s3server.Mishap {
		switch {
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "cursed"):
			return s3server.Refused
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "late"):
			<-flushed
		}
		return s3server.None
	})
	write(t, files, 1, "1.eml", octets(10))
	write(t, files, 2, "cursed-2.eml", octets(20))
	seal(t, files)
	write(t, files, 3, "late-3.eml", octets(30))
	write(t, files, 4, "cursed-4.eml", octets(40))
	refusal := func(n int) (cp []byte) {
		t.Helper()
		cp, err := files.Flush(t.Context())
		var refused message.Refusals
		if cp == nil || !errors.As(err, &refused) || len(refused) != 1 || refused[0].ID != id(n) {
			t.Errorf("got the checkpoint %s and %v, want message %d refused", cp, err, n)
		}
		return cp
	}
	first := refusal(2)
	close(flushed)
	if got, want := rows(t, path, o, first), map[string]string{"1.eml": "10 " + sum(octets(10))}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the first checkpoint covers %v, want %v", got, want)
	}
	seal(t, files)
	second := refusal(4)
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"1.eml": "10 " + sum(octets(10)), "late-3.eml": "30 " + sum(octets(30))}
	if got := rows(t, path, o, second); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the second checkpoint covers %v, want %v", got, want)
	}
}

// TestAnUploadOfTheNextEpochFails: where the server goes away, an upload of the
// sealed epoch that is given up for it isn't taken for one that was done.
func TestAnUploadOfTheNextEpochFails(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	s3 := s3server.Start(t, "mail")
	files := open(t, s3.Address("mail/acme")+"&patience=1s", target.Owner{Sink: "archive", Pipeline: "p1", Store: socket}, nil)
	defer files.Close()
	s3.Fail(func(r *http.Request) s3server.Mishap {
		switch {
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "sealed"):
			return s3server.Silent
		case r.Method == http.MethodPut:
			return s3server.Broken
		}
		return s3server.None
	})
	write(t, files, 1, "sealed.eml", octets(10))
	seal(t, files)
	write(t, files, 2, "next.eml", octets(10))
	for range 2 {
		if cp, err := files.Flush(t.Context()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("got the checkpoint %s and %v, want that the server is away", cp, err)
		}
	}
}
