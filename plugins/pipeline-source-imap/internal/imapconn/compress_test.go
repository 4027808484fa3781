package imapconn

import (
	"testing"
	"time"
)

func TestSlow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		octets     int64
		took, trip time.Duration
		want       bool
	}{
		{"a slow link", 2 << 20, 2 * time.Second, 20 * time.Millisecond, true},
		{"a fast one over an ocean", 50 << 20, time.Second, 150 * time.Millisecond, false},
		{"a busy server next door", 2 << 20, 2 * time.Second, time.Millisecond, false},
		{"too little to tell", 100_000, time.Second, 20 * time.Millisecond, false},
		{"nothing was waited for", 1 << 30, 0, 20 * time.Millisecond, false},
	} {
		if got := slow(tt.octets, tt.took, tt.trip); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
