package store_test

import (
	"bytes"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/target"
	"github.com/mailhaul/pipeline/test/s3server"
)

func always(m s3server.Mishap) func(*http.Request) s3server.Mishap {
	return func(*http.Request) s3server.Mishap { return m }
}

// A server that is in a bad way for longer than anybody waits ends an upload
// with its class, what it said, and what to do.
func TestServersThatStayBad(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	for name, c := range map[string]struct {
		mishap s3server.Mishap
		class  fault.Class
		says   []string
		hint   string
	}{
		"asks to slow down":  {mishap: s3server.SlowDown, class: fault.Throttled, says: []string{"503 SlowDown", "reduce your request rate"}, hint: "later"},
		"fails":              {mishap: s3server.Broken, class: fault.Unavailable, says: []string{"500 InternalError"}},
		"cuts off each call": {mishap: s3server.CutOff, class: fault.Unavailable, says: []string{"127.0.0.1"}},
		"says nothing":       {mishap: s3server.Silent, class: fault.Unavailable, says: []string{"the server said nothing for 6s"}, hint: "silence="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s3 := s3server.Start(t, "mail")
			path := s3.Address("mail/acme") + "&patience=1s"
			if c.mishap == s3server.Silent {
				path += "&silence=6s"
			}
			o := target.Owner{Sink: "archive", Pipeline: "p1", Store: socket}
			files := open(t, path, o, nil)
			defer files.Close()
			s3.Fail(always(c.mishap))
			write(t, files, 1, "1.eml", octets(10))
			_, err := files.Flush(t.Context())
			f := fault.As(err)
			if f == nil || f.Class != c.class {
				t.Fatalf("got %v, want an error of class %v", err, c.class)
			}
			for _, want := range append(c.says, "s3://mail/acme/1.eml") {
				if !strings.Contains(f.Text, want) {
					t.Errorf("%q doesn't say %q", f.Text, want)
				}
			}
			if !strings.Contains(f.Hint, c.hint) {
				t.Errorf("the hint is %q, want one with %q", f.Hint, c.hint)
			}
			if _, err := target.Open(t.Context(), path, o, nil); !fault.Is(err, c.class) {
				t.Errorf("opened again: got %v, want an error of class %v", err, c.class)
			}
		})
	}
}

// A slow server isn't a silent one: the store says that it still waits for it,
// and octets that trickle are octets.
func TestSlowServersAreWaitedFor(t *testing.T) {
	t.Parallel()
	s3 := s3server.Start(t, "mail")
	l, err := objects.Parse(s3.Address("mail/acme") + "&silence=18s")
	if err != nil {
		t.Fatal(err)
	}
	l.Silence = 9 * time.Second // on the way to the store alone, which beats each 3 s
	b, err := objects.Dial(serve(t), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	b.Patience = 0 // what breaks off isn't tried again
	s3.Delay(12 * time.Second)
	body := octets(2400) // at ten octets each 50 ms, 12 s
	if err := b.Put(t.Context(), "slow.eml", bytes.NewReader(body), int64(len(body)), objects.PutOptions{}); err != nil {
		t.Errorf("each answer takes 12 s: %v", err)
	}
	s3.Delay(0)
	s3.Fail(always(s3server.Trickling))
	if got, err := b.Read(t.Context(), "slow.eml"); err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %d octets (%v), want %d", len(got), err, len(body))
	}
}

// A store that takes calls and never answers, as a process that is stopped,
// holds nobody for ever.
func TestAStoreThatHangs(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = target.Open(t.Context(), "s3://mail/acme?region=x&silence=1s&patience=1s", target.Owner{Store: socket}, nil)
	f := fault.As(err)
	if f == nil || f.Class != fault.Unavailable {
		t.Fatalf("got %v, want an error of class unavailable", err)
	}
	if !strings.Contains(f.Text, "pipeline-store-objects") || !strings.Contains(f.Text, "said nothing for 1s") || f.Hint == "" {
		t.Errorf("got %q with the hint %q", f.Text, f.Hint)
	}
}

// The server dies in the middle of an upload in parts, and comes back.
func TestAServerThatDiesInAnUpload(t *testing.T) {
	t.Parallel()
	s3 := s3server.Start(t, "mail")
	b := bucket(t, s3.Address("mail/acme"), target.Owner{Store: serve(t)})
	var parts atomic.Int64
	second, dead := make(chan struct{}), make(chan struct{})
	s3.Fail(func(r *http.Request) s3server.Mishap {
		if r.Method != http.MethodPut || !r.URL.Query().Has("partNumber") {
			return s3server.None
		}
		switch parts.Add(1) {
		case 1:
			return s3server.None
		case 2:
			close(second)
		}
		<-dead
		return s3server.None
	})
	go func() {
		<-second
		s3.Kill()
		close(dead)
	}()
	done := make(chan error, 1)
	big := octets(20 << 20)
	go func() {
		done <- b.Put(t.Context(), "big.eml", bytes.NewReader(big), int64(len(big)), objects.PutOptions{})
	}()
	<-dead
	s3.Restart()
	if err := <-done; err != nil {
		t.Fatalf("put: %v", err)
	}
	if got, err := b.Read(t.Context(), "big.eml"); err != nil || !bytes.Equal(got, big) {
		t.Errorf("the object has %d octets (%v), want %d", len(got), err, len(big))
	}
}
