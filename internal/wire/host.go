package wire

import (
	"context"
	"sync"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// host is what the plugin knows of its host: the stream over which it asks.
type host struct {
	gone func()

	mu      sync.Mutex
	ready   chan struct{} // closed when the host has attached
	left    chan struct{} // closed when it is gone
	stream  pluginpb.Plugin_AttachServer
	number  uint64
	pending map[uint64]chan *pluginpb.HostAnswer
}

func newHost(gone func()) *host {
	return &host{gone: gone, ready: make(chan struct{}), pending: map[uint64]chan *pluginpb.HostAnswer{}}
}

func (h *host) attach(stream pluginpb.Plugin_AttachServer) error {
	h.mu.Lock()
	for h.stream != nil { // the end of the last host isn't yet dealt with
		left := h.left
		h.mu.Unlock()
		select {
		case <-left:
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
		h.mu.Lock()
	}
	h.stream, h.left = stream, make(chan struct{})
	close(h.ready)
	h.mu.Unlock()
	for {
		answer, err := stream.Recv()
		if err != nil {
			if h.gone != nil {
				h.gone()
			}
			h.detach() // the next host may come: see serve --debug
			return nil
		}
		h.mu.Lock()
		waiting := h.pending[answer.GetNumber()]
		delete(h.pending, answer.GetNumber())
		h.mu.Unlock()
		if waiting != nil {
			waiting <- answer
		}
	}
}

func (h *host) detach() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stream, h.ready = nil, make(chan struct{})
	close(h.left)
}

func (h *host) secret(ctx context.Context, session uint64, ref string) (string, error) {
	a, err := h.ask(ctx, &pluginpb.HostQuestion{
		Session: session, Ref: ref, Ask: &pluginpb.HostQuestion_Secret{Secret: true},
	})
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "ask the host for secret %q", ref)
	}
	return a.GetSecret(), nil
}

func (h *host) store(ctx context.Context, session uint64, ref, value string) error {
	_, err := h.ask(ctx, &pluginpb.HostQuestion{
		Session: session, Ref: ref, Ask: &pluginpb.HostQuestion_StoreSecret{StoreSecret: value},
	})
	return fault.Wrap(fault.Unavailable, err, "store secret %q with the host", ref)
}

func (h *host) ask(ctx context.Context, q *pluginpb.HostQuestion) (*pluginpb.HostAnswer, error) {
	h.mu.Lock()
	ready := h.ready
	h.mu.Unlock()
	select {
	case <-ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	answer := make(chan *pluginpb.HostAnswer, 1)
	h.mu.Lock()
	stream := h.stream
	if stream == nil {
		h.mu.Unlock()
		return nil, fault.New(fault.Unavailable, "the host is gone")
	}
	h.number++
	q.Number = h.number
	h.pending[q.Number] = answer
	err := stream.Send(q) // under the lock: one sender at a time
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.pending, q.Number)
		h.mu.Unlock()
	}()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-answer:
		return a, ErrorFromPB(a.GetError())
	case <-stream.Context().Done():
		return nil, fault.New(fault.Unavailable, "the host is gone")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
