package wire

import (
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/message"
)

// What is put on a busy stream waits for more, and what is flushed doesn't.
func TestFlushDoesNotWaitForMore(t *testing.T) {
	t.Parallel()
	sent := make(chan int, 1)
	w := NewWriter(NewMemory(NewPool(), nil), func(f *Frame) error {
		sent <- f.size
		return nil
	})
	w.mu.Lock()
	w.sent = time.Now().Add(time.Hour) // so long a stream waits that sent a frame right now
	w.mu.Unlock()
	for _, text := range []string{"one", "three"} {
		if _, err := w.Put(&pluginpb.Begin{}, message.BodyOf([]byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case n := <-sent:
		t.Fatalf("%d octets are sent, and nobody flushed", n)
	default:
	}
	w.Flush()
	if n := <-sent; n != len("onethree") {
		t.Errorf("a frame of %d octets is sent, of 8", n)
	}
	if err := w.Close(nil); err != nil {
		t.Error(err)
	}
}
