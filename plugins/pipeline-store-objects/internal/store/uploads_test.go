package store_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/target"
	"github.com/mailhaul/pipeline/test/s3server"
)

// An upload that was neither ended nor given up can be told of; it is no object.
func TestUploadsThatNeverEnded(t *testing.T) {
	t.Parallel()
	s3 := s3server.Start(t, "mail")
	b := bucket(t, s3.Address("mail/acme"), target.Owner{Store: serve(t)})
	b.Patience = 1 // one try
	unfinished := func() (names []string) {
		t.Helper()
		for name, err := range b.Unfinished(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		return names
	}
	if got := unfinished(); len(got) != 0 {
		t.Errorf("there are %q", got)
	}
	s3.Fail(func(r *http.Request) s3server.Mishap {
		q := r.URL.Query()
		switch {
		case r.Method == http.MethodPut && q.Has("partNumber"), r.Method == http.MethodDelete && q.Has("uploadId"):
			return s3server.Forbidden
		}
		return s3server.None
	})
	big := octets(17 << 20)
	if err := b.Put(t.Context(), "alice/big.eml", bytes.NewReader(big), int64(len(big)), objects.PutOptions{}); err == nil {
		t.Fatal("it was uploaded")
	}
	s3.Fail(nil)
	if got := unfinished(); !slices.Equal(got, []string{"alice/big.eml"}) {
		t.Errorf("unfinished are %q", got)
	}
	if _, _, err := b.Content(t.Context(), "alice/big.eml", 0); !errors.Is(err, objects.ErrMissing) {
		t.Errorf("it can be read: %v", err)
	}
}

// Content costs one request, from any octet on, and an object that was altered
// behind the server's back is read as it is.
func TestContent(t *testing.T) {
	t.Parallel()
	s3 := s3server.Start(t, "mail")
	b := bucket(t, s3.Address("mail/acme"), target.Owner{Store: serve(t)})
	want := octets(300 << 10)
	for name, body := range map[string][]byte{"full": want, "empty": nil} {
		if err := b.Put(t.Context(), name, bytes.NewReader(body), int64(len(body)), objects.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string, offset int64) ([]byte, int64) {
		t.Helper()
		before := s3.Calls(http.MethodGet) + s3.Calls(http.MethodHead)
		in, size, err := b.Content(t.Context(), name, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(in)
		if err = errors.Join(err, in.Close()); err != nil {
			t.Fatal(err)
		}
		if n := s3.Calls(http.MethodGet) + s3.Calls(http.MethodHead) - before; n != 1 {
			t.Errorf("%s from %d took %d requests", name, offset, n)
		}
		return got, size
	}
	for _, from := range []int64{0, 1, 299 << 10, 300<<10 - 1} {
		if got, size := read("full", from); size != int64(len(want)) || !bytes.Equal(got, want[from:]) {
			t.Errorf("from %d: %d octets of %d", from, len(got), size)
		}
	}
	if got, size := read("empty", 0); size != 0 || len(got) != 0 {
		t.Errorf("the empty one has %d octets of %d", len(got), size)
	}
	altered := bytes.Clone(want)
	altered[1000] ^= 1
	if err := os.WriteFile(filepath.Join(s3.Folder, "mail/acme/full"), altered, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := read("full", 0); !bytes.Equal(got, altered) {
		t.Error("the altered object isn't read as it is")
	}
}
