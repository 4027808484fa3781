package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
)

func TestSupported(t *testing.T) {
	t.Parallel()
	for _, system := range []string{"linux", "darwin", "freebsd"} {
		if err := supported(system); err != nil {
			t.Errorf("%s: %v", system, err)
		}
	}
	if err := supported("windows"); !fault.Is(err, fault.Config) || fault.As(err).Hint == "" {
		t.Errorf("windows: %v", err)
	}
}

// A person is sent to run again only where that may help.
func TestConcludeIncomplete(t *testing.T) {
	t.Parallel()
	refused := fault.New(fault.Auth, "log in: the server answered NO")
	away := fault.New(fault.Unavailable, "connect: no answer in time")
	for _, tt := range []struct {
		name     string
		problems []error
		says     string
	}{
		{"a wrong password", []error{refused}, "incomplete: mend what the errors name, then run again"},
		{"a wrong password, and a server that is away", []error{refused, away}, "incomplete: run again to go on"},
		{"trouble without a class", []error{errors.New("?")}, "incomplete: run again to go on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &engine.Result{}
			for _, err := range tt.problems {
				r.Accounts = append(r.Accounts, engine.Account{Source: "alice", Err: err})
			}
			var out strings.Builder
			err := (&command{stdio: stdio{err: &out}}).conclude(r, engine.ExitIncomplete, nil)
			if err == nil || !strings.Contains(out.String(), tt.says) {
				t.Errorf("%v, and said %q; want %q", err, out.String(), tt.says)
			}
		})
	}
}

// What several goroutines met at once is one problem in the events of --json.
func TestDistinct(t *testing.T) {
	t.Parallel()
	full := func() error { return fault.New(fault.Full, "write the ledger").WithHint("make room") }
	other := fault.New(fault.Full, "write the ledger").WithHint("put it back")
	got := distinct([]error{errors.Join(full(), full()), nil, errors.Join(full(), errors.Join(other, other))})
	if len(got) != 2 || fault.As(got[0]).Hint != "make room" || fault.As(got[1]).Hint != "put it back" {
		t.Errorf("got %q", got)
	}
}
