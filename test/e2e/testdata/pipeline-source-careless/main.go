// Command pipeline-source-careless is a plugin for tests whose author thinks of
// no secrets: it dies with all that it knows in the reason.
package main

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
)

type config struct {
	Password spec.Secret `json:"password" doc:"told to everybody"`
	Do       string      `json:"do" doc:"how it is told"`
}

// login is what such an author makes of a config.
type login struct{ User, Password string }

func main() {
	source.Serve(source.Plugin[config]{
		Name: "careless", Version: "1.0.0", Summary: "dies with all that it knows", Provides: message.NeedBody,
		Open: func(ctx context.Context, c config, _ source.Env) (source.Opened, error) {
			password, err := c.Password.Value(ctx)
			if err != nil {
				return source.Opened{}, err
			}
			return source.Opened{Source: &careless{c, login{"alice", password}}, Lanes: 1, URL: "careless://"}, nil
		},
	})
}

type careless struct {
	config config
	login  login
}

func (s *careless) Mailboxes(context.Context) iter.Seq2[message.Mailbox, error] {
	switch s.config.Do {
	case "panic in a call":
		panic(fmt.Sprintf("%+v", s.login))
	case "panic with the config":
		aside(func() { panic(fmt.Sprintf("%+v %#v", s.config, s.config)) })
	case "panic beside":
		aside(func() { panic(fmt.Sprintf("%+v", s.login)) })
	case "panic with an error":
		aside(func() { panic(fmt.Errorf("can't log in as %q", s.login)) })
	case "panic with a struct":
		aside(func() { panic(s.login) })
	case "panic at length": // longer than a line that is read in one piece, with the secret across each piece's end
		long := strings.Repeat("x", 1<<16-20)
		aside(func() { panic(long + s.login.Password + long + s.login.Password + long) })
	case "fault":
		aside(func() { s.login.look(nil) })
	}
	return func(func(message.Mailbox, error) bool) {}
}

// aside does something where no caller can catch its panic.
func aside(f func()) {
	go f()
	select {}
}

// look has a fault, with its texts on the stack.
//
//go:noinline
func (l login) look(other *login) bool { return l.Password == other.Password }

func (s *careless) List(context.Context, source.ListRequest) iter.Seq2[message.Summary, error] {
	return func(func(message.Summary, error) bool) {}
}

func (s *careless) Fetch(context.Context, source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(func(source.Fetched, error) bool) {}
}

func (s *careless) Close() error { return nil }
