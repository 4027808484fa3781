package main

import (
	"testing"

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
