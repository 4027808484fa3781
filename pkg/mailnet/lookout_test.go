package mailnet

import (
	"bufio"
	"errors"
	"io"
	"testing"
)

func TestLookout(t *testing.T) {
	t.Parallel()
	in, out := io.Pipe()
	r := bufio.NewReader(in)
	var l Lookout
	if err := l.End(); err != nil {
		t.Errorf("End without a look: %v", err)
	}
	ready := l.Ready(r)
	if ready == nil {
		t.Fatal("Ready is nil, with nothing to read")
	}
	select {
	case <-ready:
		t.Fatal("something is ready that nobody sent")
	default:
	}
	if l.Ready(r) != ready {
		t.Error("a second Ready began another look")
	}
	go func() { _, _ = out.Write([]byte("ab")) }()
	<-ready
	if err := l.End(); err != nil {
		t.Errorf("End: %v", err)
	}
	if b, err := r.ReadByte(); b != 'a' || err != nil {
		t.Errorf("the look took the octet: %q, %v", b, err)
	}
	if l.Ready(r) != nil {
		t.Error("Ready isn't nil, with an octet in the buffer")
	}
	_, _ = r.ReadByte()

	ready = l.Ready(r)
	cut := errors.New("cut")
	_ = out.CloseWithError(cut)
	<-ready
	if err := l.End(); !errors.Is(err, cut) {
		t.Errorf("End: %v, want %v", err, cut)
	}
	if err := l.End(); err != nil {
		t.Errorf("the second End: %v: an error is told once", err)
	}
}
