package store_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
	"github.com/mailhaul/pipeline/test/s3server"
)

// on gives requests that write a key with a word in it a mishap.
func on(word string, m s3server.Mishap) func(*http.Request) s3server.Mishap {
	return func(r *http.Request) s3server.Mishap {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, word) {
			return m
		}
		return s3server.None
	}
}

// A key that the server refuses is that message's trouble: the checkpoint
// covers the others, and the manifest has no row of it (I6).
func TestAnObjectThatIsRefused(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	for name, mishap := range map[string]s3server.Mishap{"400": s3server.Refused, "403": s3server.Forbidden} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s3 := s3server.Start(t, "mail")
			path, o := s3.Address("mail/acme"), target.Owner{Sink: "archive", Pipeline: "p1", Store: socket}
			files := open(t, path, o, nil)
			s3.Fail(on("cursed", mishap))
			write(t, files, 1, "1.eml", octets(10))
			write(t, files, 2, "cursed.eml", octets(20))
			cp, err := files.Flush(t.Context())
			var refused message.Refusals
			if cp == nil || !errors.As(err, &refused) || len(refused) != 1 || refused[0].ID != id(2) {
				t.Fatalf("got the checkpoint %s and %v, want message 2 refused", cp, err)
			}
			if f := fault.As(refused[0].Err); f.Class != fault.Message || f.Reason != "refused_by_server" || !strings.Contains(f.Text, "s3://mail/acme/cursed.eml") {
				t.Errorf("refused with %+v", f)
			}
			write(t, files, 3, "3.eml", octets(30))
			cp = flush(t, files) // it isn't told again
			if err := files.Close(); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"1.eml": "10 " + sum(octets(10)), "3.eml": "30 " + sum(octets(30))}
			if got := rows(t, path, o, cp); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the manifest has %v, want %v", got, want)
			}
		})
	}
}

// A key on which the server fails for ever is that message's trouble too, as
// long as the server takes others: else no run would ever end well (I6).
func TestAnObjectThatAlwaysFails(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	for name, c := range map[string]struct {
		word string
		one  bool // it is one message's trouble
	}{
		"one key":   {word: "cursed", one: true},
		"every key": {word: ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s3 := s3server.Start(t, "mail")
			files := open(t, s3.Address("mail/acme")+"&patience=1s", target.Owner{Sink: "archive", Pipeline: "p1", Store: socket}, nil)
			defer files.Close()
			s3.Fail(on(c.word, s3server.Broken))
			write(t, files, 1, "cursed.eml", octets(20))
			cp, err := files.Flush(t.Context())
			if !c.one {
				if cp != nil || !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "500 InternalError") {
					t.Errorf("got the checkpoint %s and %v, want Unavailable", cp, err)
				}
				return
			}
			var refused message.Refusals
			if cp == nil || !errors.As(err, &refused) || len(refused) != 1 || refused[0].ID != id(1) {
				t.Fatalf("got the checkpoint %s and %v, want message 1 refused", cp, err)
			}
			f := fault.As(refused[0].Err)
			if f.Class != fault.Message || f.Reason != "server_fails" || !strings.Contains(f.Text, "500 InternalError") || f.Hint == "" {
				t.Errorf("refused with %+v", f)
			}
		})
	}
}

// A server that refuses everything, or so much that it can't be about single
// messages, fails the sink.
func TestAServerThatRefusesAll(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	for name, c := range map[string]struct {
		word  string
		many  int
		class fault.Class
	}{
		"every key":               {word: "", many: 1, class: fault.Auth},
		"every key but the books": {word: ".eml", many: 20, class: fault.Auth},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s3 := s3server.Start(t, "mail")
			files := open(t, s3.Address("mail/acme"), target.Owner{Sink: "archive", Pipeline: "p1", Store: socket}, nil)
			defer files.Close()
			s3.Fail(on(c.word, s3server.Forbidden))
			for n := range c.many {
				write(t, files, n+1, fmt.Sprintf("%d.eml", n), octets(10))
			}
			cp, err := files.Flush(t.Context())
			var refused message.Refusals
			if cp != nil || errors.As(err, &refused) || !fault.Is(err, c.class) {
				t.Errorf("got the checkpoint %s and %v, want an error of class %v alone", cp, err, c.class)
			}
			if cp, err := files.Flush(t.Context()); err == nil {
				t.Errorf("flushed again, it gave the checkpoint %s", cp)
			}
		})
	}
}
