package wire

import (
	"context"
	"log/slog"
	"testing"

	"github.com/mailhaul/pipeline/internal/pluginpb"
)

// TestOpenOfAHostThatIsGone: a host that is killed while it opens a session
// leaves none behind. Found by the soak: a sink under a debugger kept the lock of
// its target for ever.
func TestOpenOfAHostThatIsGone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		before, gone bool // when it was killed: before the call began, or in the middle
	}{
		{name: "it lives"},
		{"killed in the middle", false, true},
		{"killed before the call was taken up", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.before {
				cancel()
			}
			closed := false
			s := NewServer(Author{Open: func(context.Context, Opening) (*Session, error) {
				if tt.gone {
					cancel()
				}
				return &Session{Close: func() error { closed = true; return nil }}, nil
			}}, slog.New(slog.DiscardHandler), NewMemory(NewPool(), nil), nil)
			r, err := s.Open(ctx, &pluginpb.OpenRequest{Session: 1})
			if err != nil {
				t.Fatal(err)
			}
			if refused := r.GetError() != nil; refused != tt.gone || closed != tt.gone {
				t.Errorf("refused %v, closed %v; want both %v", refused, closed, tt.gone)
			}
			if _, err := s.session(1); (err != nil) != tt.gone {
				t.Errorf("the session is there: %v", err == nil)
			}
		})
	}
}
