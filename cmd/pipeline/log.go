package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// screen is where a person reads along. While bars are drawn, lines have to
// pass through what draws them. It is safe for concurrent use.
type screen struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// through sends what is written to w from now on.
func (s *screen) through(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = w
}

// warnings is a log for people: a line for each record that is a warning or
// worse, as the command's own lines are. --debug has the whole log instead.
type warnings struct {
	w     io.Writer
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (h *warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h *warnings) Handle(_ context.Context, r slog.Record) error {
	who, rest := "", []string(nil)
	add := func(a slog.Attr) bool {
		if a.Key == "plugin" {
			who = "plugin " + a.Value.String() + ": "
		} else {
			rest = append(rest, a.Key+" "+a.Value.String())
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	line := "warning: " + who + r.Message
	if len(rest) > 0 {
		line += " (" + strings.Join(rest, ", ") + ")"
	}
	_, err := fmt.Fprintln(h.w, line)
	return err
}

// WithAttrs implements slog.Handler.
func (h *warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &warnings{h.w, append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

// WithGroup implements slog.Handler. Nobody here has groups: their names are
// left out.
func (h *warnings) WithGroup(string) slog.Handler { return h }
