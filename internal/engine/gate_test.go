package engine

import "testing"

// TestAnEpochGoesOnWhileTheOneBeforeIsCommitted: being asked to commit soon, as
// once a second, keeps nobody out as long as the committer is at work; a full
// epoch does, so that at most two of them are in memory (I5).
func TestAnEpochGoesOnWhileTheOneBeforeIsCommitted(t *testing.T) {
	t.Parallel()
	g := newGate()
	pass := func(n int) {
		for range n {
			it := &item{}
			g.enter(it)
			g.leave(it)
		}
	}
	pass(1)
	if items, _ := g.close(); len(items) != 1 {
		t.Fatalf("%d items, want 1", len(items))
	}
	g.open()
	// The first epoch is sealed, and being flushed.
	pass(1)
	g.kick()
	pass(g.most - 2)
	if g.wanted {
		t.Fatal("an epoch that isn't full keeps messages out before the committer asks for it")
	}
	pass(1)
	if !g.wanted {
		t.Fatalf("an epoch of %d messages lets more in", g.most)
	}
	entered := make(chan struct{})
	go func() {
		pass(1)
		close(entered)
	}()
	if items, _ := g.close(); len(items) != g.most {
		t.Errorf("%d items, want %d", len(items), g.most)
	}
	select {
	case <-entered:
		t.Error("a message entered an epoch that is being closed")
	default:
	}
	g.open()
	<-entered
	select {
	case <-g.wake:
	default:
		t.Error("the committer wasn't woken")
	}
	g.timer.Stop()
}
