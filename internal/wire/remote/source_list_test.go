package remote_test

import (
	"context"
	"iter"
	"testing"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// TestListGoesOn: a plugin sees which requests go on with a listing, and can
// tell the state in each.
func TestListGoesOn(t *testing.T) {
	t.Parallel()
	asked := make(chan bool, 2)
	s := openSource(t, wire.Session{Lanes: 1, List: func(_ context.Context, r wire.ListRequest) iter.Seq2[message.Summary, error] {
		asked <- r.GoesOn
		r.State(message.MailboxState{})
		return func(func(message.Summary, error) bool) {}
	}})
	for _, goesOn := range []bool{false, true} {
		for _, err := range s.List(t.Context(), source.ListRequest{Mailbox: "INBOX", GoesOn: goesOn}) {
			t.Fatal(err)
		}
		if got := <-asked; got != goesOn {
			t.Errorf("the plugin sees that the request goes on: %v, want %v", got, goesOn)
		}
	}
}
