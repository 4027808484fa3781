package remote

import "testing"

// What is owed is told after so many looks without progress, and nothing else
// is.
func TestWhatIsOverdue(t *testing.T) {
	t.Parallel()
	looks := func(c *Conn, n int) (what string) {
		for range n {
			if w := c.overdue(); w != "" {
				what = w
			}
		}
		return what
	}
	newConn := func() *Conn { return &Conn{watches: map[*watch]bool{}} }

	t.Run("a call", func(t *testing.T) {
		t.Parallel()
		c := newConn()
		answered := c.call("Flush")
		if what := looks(c, watchSteps); what != "" {
			t.Errorf("%s is overdue too early", what)
		}
		if what := looks(c, 1); what != "Flush" {
			t.Errorf("overdue is %q", what)
		}
		answered()
		if what := looks(c, 10*watchSteps); what != "" {
			t.Errorf("%s was answered, and is overdue", what)
		}
	})
	t.Run("progress", func(t *testing.T) {
		t.Parallel()
		c := newConn()
		w := c.watch("Write", func() int { return once })
		for range 20 {
			if what := looks(c, watchSteps); what != "" {
				t.Fatalf("%s is overdue while it goes on", what)
			}
			w.progress.Add(1)
		}
	})
	// Whose turn it is in a Fetch.
	for _, tt := range []struct {
		name                   string
		receiving, asked, body bool
		pulled                 int64
		patience               int // steps of watchSteps after which it is overdue; 0: never
	}{
		{name: "the host is busy with a message"},
		{name: "the host waits", receiving: true, patience: 1},
		{name: "both wait, the plugin for ids", receiving: true, asked: true},
		{name: "both wait, and the plugin has ids", receiving: true, asked: true, pulled: 3, patience: 2},
		{name: "both wait, in the middle of a message", receiving: true, asked: true, body: true, pulled: 1, patience: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newConn()
			turns := c.turns("Fetch")
			turns.receiving.Store(tt.receiving)
			turns.asked.Store(tt.asked)
			turns.body.Store(tt.body)
			turns.pulled.Store(tt.pulled)
			if tt.patience == 0 {
				if what := looks(c, 10*watchSteps); what != "" {
					t.Errorf("%s is overdue", what)
				}
				return
			}
			if what := looks(c, tt.patience*watchSteps); what != "" {
				t.Errorf("%s is overdue too early", what)
			}
			if what := looks(c, 1); what != "Fetch" {
				t.Errorf("overdue is %q", what)
			}
		})
	}
}
