package store_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/target"
	"github.com/mailhaul/pipeline/plugins/pipeline-store-objects/internal/store"
	"github.com/mailhaul/pipeline/test/s3server"
)

// A sink that is killed in the middle of an upload must not leave half an
// object in place of a whole one.
func TestAnUploadThatBreaksOffReplacesNothing(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	for _, kind := range kinds[1:] {
		for what, size := range map[string]int{"small": 100, "in parts": 20 << 20} {
			t.Run(kind+" "+what, func(t *testing.T) {
				t.Parallel()
				path := where(t, kind)
				b := bucket(t, path, target.Owner{Store: socket})
				whole := octets(50)
				if err := b.Put(t.Context(), "index.jsonl", bytes.NewReader(whole), int64(len(whole)), objects.PutOptions{}); err != nil {
					t.Fatal(err)
				}
				body := io.MultiReader(bytes.NewReader(octets(size)), failing{errors.New("the sink was killed")})
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPut,
					objects.PathObject+"?key="+url.QueryEscape(b.Location().Key("index.jsonl")), body)
				r.ContentLength = int64(size) + 1
				r.Header.Set(objects.HeaderBucket, b.Location().Bucket)
				w := httptest.NewRecorder()
				store.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
				if w.Code < http.StatusBadRequest {
					t.Errorf("the store answered %d", w.Code)
				}
				if got, err := b.Read(t.Context(), "index.jsonl"); err != nil || !bytes.Equal(got, whole) {
					t.Errorf("the object has %d octets (%v), want the %d that were there", len(got), err, len(whole))
				}
			})
		}
	}
}

// The answer to the end of an upload in parts is lost: the server doesn't know
// the upload any more when its end is asked for again.
func TestAnUploadInPartsWhoseEndIsNotHeard(t *testing.T) {
	t.Parallel()
	for what, mishap := range map[string]s3server.Mishap{"cut off after it was done": s3server.CutAfter, "refused": s3server.SlowDown} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s3 := s3server.Start(t, "mail")
			b := bucket(t, s3.Address("mail/acme"), target.Owner{Store: serve(t)})
			var ends atomic.Int64
			s3.Fail(func(r *http.Request) s3server.Mishap {
				if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") && ends.Add(1) == 1 {
					return mishap
				}
				return s3server.None
			})
			big := octets(17 << 20)
			if err := b.Put(t.Context(), "big.eml", bytes.NewReader(big), int64(len(big)), objects.PutOptions{}); err != nil {
				t.Fatalf("put: %v", err)
			}
			if got, err := b.Read(t.Context(), "big.eml"); err != nil || !bytes.Equal(got, big) {
				t.Errorf("the object has %d octets (%v), want %d", len(got), err, len(big))
			}
			if ends.Load() < 2 {
				t.Errorf("the upload was ended %d times, want 2", ends.Load())
			}
		})
	}
}

// Who may list only what is under its prefix can write there.
func TestNothingOutsideThePlaceIsListed(t *testing.T) {
	t.Parallel()
	s3 := s3server.Start(t, "mail")
	var mu sync.Mutex
	var outside []string
	s3.Fail(func(r *http.Request) s3server.Mishap {
		q := r.URL.Query()
		if q.Has("list-type") && !strings.HasPrefix(q.Get("prefix"), "acme/eml/") {
			mu.Lock()
			defer mu.Unlock()
			outside = append(outside, r.URL.RawQuery)
		}
		return s3server.None
	})
	o := target.Owner{Sink: "archive", Pipeline: "p1", Store: serve(t)}
	if err := open(t, s3.Address("mail/acme/eml"), o, nil).Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(outside) > 0 {
		t.Errorf("listed: %q", outside)
	}
}
