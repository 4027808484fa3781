package job

import (
	"maps"
	"testing"
)

// Workers that share an account keep its pace together.
func TestSharePace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		share int
		rates map[string]any
		want  map[string]any
	}{
		{"one worker has all of it", 1, map[string]any{"bytes": "8MB/s"}, map[string]any{"bytes": "8MB/s"}},
		{"four have a quarter each", 4, map[string]any{"bytes": "8MB/s", "messages": "600/m"}, map[string]any{"bytes": "2MB/s", "messages": "2.5/s"}},
		{"a little stays a limit", 16, map[string]any{"bytes": "4B/s"}, map[string]any{"bytes": "1B/s"}},
		{"no limit stays none", 4, map[string]any{"bytes": "0B/s", "messages": nil}, map[string]any{"bytes": "0B/s", "messages": nil}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sharePace(map[string]any{"rate": tt.rates}, tt.share)
			if !maps.Equal(tt.rates, tt.want) {
				t.Errorf("got %v, want %v", tt.rates, tt.want)
			}
		})
	}
	sharePace(map[string]any{"address": "imap.example.org"}, 4) // a source without a pace
}
