package remote_test

import (
	"context"
	"iter"
	"testing"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// TestListGoesOn: a plugin sees that nobody asks for a mailbox's state.
func TestListGoesOn(t *testing.T) {
	t.Parallel()
	asked := make(chan bool, 2)
	s := openSource(t, wire.Session{Lanes: 1, List: func(_ context.Context, r wire.ListRequest) iter.Seq2[message.Summary, error] {
		asked <- r.State != nil
		return func(func(message.Summary, error) bool) {}
	}})
	for _, state := range []func(message.MailboxState){nil, func(message.MailboxState) {}} {
		for _, err := range s.List(t.Context(), source.ListRequest{Mailbox: "INBOX", State: state}) {
			t.Fatal(err)
		}
		if got := <-asked; got != (state != nil) {
			t.Errorf("the plugin is asked for the state: %v, want %v", got, state != nil)
		}
	}
}
