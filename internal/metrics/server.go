package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Server answers at one address until Close: /metrics for Prometheus, /healthz
// for whoever restarts a process that is stuck.
type Server struct {
	listener net.Listener
	http     *http.Server
	ended    chan struct{}
}

// Serve begins to answer at an address as in "127.0.0.1:9090". The error is of
// class Config: the address is none of ours, or taken.
func Serve(ctx context.Context, address string, m *Metrics) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		failed := fault.Wrap(fault.Config, err, "serve metrics").(*fault.Error)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, failed.WithHint("something listens there, perhaps another run: give another port, or 0 for any that is free")
		}
		return nil, failed.WithHint("expected an address of this machine, as in --metrics 127.0.0.1:9090")
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := m.Unwell(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	s := &Server{listener: listener, ended: make(chan struct{}), http: &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
	}}
	go func() {
		defer close(s.ended)
		_ = s.http.Serve(listener) // ends with Close; a run goes on unwatched
	}()
	return s, nil
}

// Addr returns where it answers.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close ends the answers at once.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.ended
	return err
}
