package plugintest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// reel returns a sink that seals epochs without pkg/target: a line a message in
// one file, and checkpoints that are its length.
func reel(broken string) sink.Plugin[shelfConfig] {
	return sink.Plugin[shelfConfig]{
		Name: "reel", Version: "1.0.0", Summary: "a line a message",
		Prepare: func(c shelfConfig) (sink.Prepared, error) {
			return sink.Prepared{Target: c.Path, Lanes: 1, Needs: message.NeedBody}, nil
		},
		Open: func(_ context.Context, c shelfConfig, st sink.State) (sink.Sink, error) {
			if err := os.MkdirAll(c.Path, 0o755); err != nil {
				return nil, err
			}
			f, err := os.OpenFile(filepath.Join(c.Path, "reel"), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return nil, err
			}
			length, _ := strconv.ParseInt(string(st.Checkpoint), 10, 64) // 0 for none
			if err := f.Truncate(length); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			s := &wound{file: f, broken: broken, sealed: -1, lines: map[string]bool{}}
			all, err := io.ReadAll(f)
			for line := range strings.Lines(string(all)) {
				s.lines[line] = true
			}
			s.length = int64(len(all))
			return s, err
		},
	}
}

type wound struct {
	file   *os.File
	broken string

	mu     sync.Mutex
	lines  map[string]bool
	length int64
	sealed int64 // up to where the next Flush covers; -1: all
}

func (s *wound) Write(_ context.Context, m *message.Message) (sink.Receipt, error) {
	n, err := io.Copy(io.Discard, m.Body)
	if err != nil {
		return sink.Receipt{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf("%s %d\n", m.ID.Hash(), n)
	if s.lines[line] {
		return sink.Receipt{Octets: n}, nil
	}
	s.lines[line] = true
	at := s.length
	s.length += int64(len(line))
	_, err = s.file.WriteAt([]byte(line), at)
	return sink.Receipt{Octets: n}, err
}

// Seal breaks by the faults "covers" (the Flush covers what came later too) and
// "forgets" (it doesn't cover the last line that came before).
func (s *wound) Seal(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.broken {
	case "covers":
		return nil
	case "forgets":
		all := make([]byte, s.length)
		if _, err := s.file.ReadAt(all, 0); err != nil {
			return err
		}
		s.sealed = int64(strings.LastIndexByte(strings.TrimSuffix(string(all), "\n"), '\n') + 1)
		return nil
	}
	s.sealed = s.length
	return nil
}

// Flush breaks by the fault "sticks": a Flush without a Seal covers what the one
// before it did.
func (s *wound) Flush(context.Context) (sink.Checkpoint, error) {
	s.mu.Lock()
	covered := s.sealed
	if covered < 0 {
		covered = s.length
	}
	if s.broken != "sticks" {
		s.sealed = -1
	}
	s.mu.Unlock()
	return strconv.AppendInt(nil, covered, 10), s.file.Sync()
}

func (s *wound) Close() error { return s.file.Close() }
