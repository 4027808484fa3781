package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/remote"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/stage"
)

func openStage(t *testing.T, needs message.Needs, apply func(context.Context, *message.Message) (int, error)) *remote.Stage {
	t.Helper()
	a := sourceOf(wire.Session{Apply: apply})
	a.Kind = wire.KindStage
	s, err := connect(t, a).OpenStage(t.Context(), remote.Spec{Name: "st"}, wire.Prepared{Needs: needs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// flip is a stage that streams: it never holds a body.
type flip struct{ r io.Reader }

func (f flip) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	for i := range p[:n] {
		p[i] ^= 0xff
	}
	return n, err
}

func TestStage(t *testing.T) {
	t.Parallel()
	s := openStage(t, message.NeedBody, func(_ context.Context, m *message.Message) (int, error) {
		switch m.ID.UID {
		case 1:
			m.Vars = map[string]string{"seen": "yes"}
			m.Body = message.NewBody(flip{m.Body}, m.Body.Size(), nil)
			return int(stage.Keep), nil
		case 2: // looks, and leaves it
			_, err := io.Copy(io.Discard, m.Body)
			return int(stage.Drop), err
		case 3:
			return 0, fault.New(fault.Message, "not this one").WithReason("ugly")
		}
		return int(stage.Undecided), nil
	})
	for _, n := range []int{10, 10 << 20} {
		plain := patternOf(1, n)
		flipped, err := io.ReadAll(flip{bytes.NewReader(plain)})
		if err != nil {
			t.Fatal(err)
		}
		for uid, want := range map[int]struct {
			verdict stage.Verdict
			body    []byte
		}{1: {stage.Keep, flipped}, 2: {stage.Drop, plain}, 4: {stage.Undecided, plain}} {
			m := withUID(uid, message.NewBody(bytes.NewReader(plain), int64(n), nil))
			old := m.Body
			v, err := s.Apply(t.Context(), m)
			if err != nil || v != want.verdict || m.ID != withUID(uid, nil).ID {
				t.Fatalf("message %d: verdict %v, %v, id %v", uid, v, err, m.ID)
			}
			if got, err := io.ReadAll(m.Body); err != nil || !bytes.Equal(got, want.body) {
				t.Errorf("message %d: %d octets, %v, wrong", uid, len(got), err)
			}
			if uid == 1 && m.Vars["seen"] != "yes" {
				t.Errorf("the stage's variable is lost: %v", m.Vars)
			}
			old.Release()
		}
		m := withUID(3, message.BodyOf(plain))
		if _, err := s.Apply(t.Context(), m); !fault.Is(err, fault.Message) || fault.As(err).Reason != "ugly" {
			t.Errorf("%v", err)
		}
	}
}

func TestStageWithoutBodyAndCancel(t *testing.T) {
	t.Parallel()
	s := openStage(t, message.NeedSize, func(ctx context.Context, m *message.Message) (int, error) {
		if m.Body != nil {
			return 0, errors.New("a body was sent though none was asked for")
		}
		if m.Size == 0 {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return int(stage.Keep), nil
	})
	m := withUID(1, message.BodyOf([]byte("x")))
	m.Size = 5
	if v, err := s.Apply(t.Context(), m); err != nil || v != stage.Keep {
		t.Fatalf("%v, %v", v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Size = 0
	if _, err := s.Apply(ctx, m); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

// What can't be put on the wire is an error of the call, not one that is waited
// for.
func TestApplyOfWhatCantBeSent(t *testing.T) {
	t.Parallel()
	s := openStage(t, 0, func(context.Context, *message.Message) (int, error) { return int(stage.Keep), nil })
	m := &message.Message{}
	m.ID = message.ID{Mailbox: "\xff no UTF-8", UIDValidity: 1, UID: 1}
	_, err := s.Apply(t.Context(), m)
	mustContain(t, err, "UTF-8")
}
