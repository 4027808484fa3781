package plugintest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// shared returns a sink that several may write to at once: a file a message,
// named after its owner, and checkpoints that name what counts.
func shared(broken string) sink.Plugin[shelfConfig] {
	return sink.Plugin[shelfConfig]{
		Name: "shared", Version: "1.0.0", Summary: "a file a message, for several machines",
		Prepare: func(c shelfConfig) (sink.Prepared, error) {
			return sink.Prepared{Target: c.Path, Lanes: 2, Needs: message.NeedBody, Fenced: true}, nil
		},
		Open: func(_ context.Context, c shelfConfig, st sink.State) (sink.Sink, error) {
			if err := os.MkdirAll(c.Path, 0o755); err != nil {
				return nil, err
			}
			s := &sharedSink{path: c.Path, broken: broken, mark: fmt.Sprintf("~%s-%d", st.Fence.Task, st.Fence.Number)}
			if st.Checkpoint != nil {
				if err := json.Unmarshal(st.Checkpoint, &s.names); err != nil {
					return nil, err
				}
			}
			return s, nil
		},
	}
}

type sharedSink struct {
	path, broken, mark string

	mu    sync.Mutex
	names []string
}

func (s *sharedSink) Write(_ context.Context, m *message.Message) (sink.Receipt, error) {
	name := m.ID.Hash() + s.mark
	if s.broken == "names" {
		name = m.ID.Hash()
	}
	temp, err := os.CreateTemp(s.path, ".new-")
	if err != nil {
		return sink.Receipt{}, err
	}
	n, err := m.Body.WriteTo(temp)
	if err = errors.Join(err, temp.Close()); err != nil {
		return sink.Receipt{}, errors.Join(err, os.Remove(temp.Name()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.names, name) {
		s.names = append(s.names, name)
	}
	return sink.Receipt{Path: name, Octets: n}, os.Rename(temp.Name(), filepath.Join(s.path, name))
}

func (s *sharedSink) Flush(context.Context) (sink.Checkpoint, error) { return json.Marshal(s.names) }

func (s *sharedSink) Close() error { return nil }

func (s *sharedSink) Merge(_ context.Context, tasks []sink.TaskCheckpoint) (sink.Checkpoint, error) {
	counts := []string{}
	for _, t := range tasks {
		var names []string
		if t.Checkpoint != nil {
			if err := json.Unmarshal(t.Checkpoint, &names); err != nil {
				return nil, err
			}
		}
		counts = append(counts, names...)
	}
	entries, err := os.ReadDir(s.path)
	for _, e := range entries {
		if s.broken == "leftovers" || slices.Contains(counts, e.Name()) && s.broken != "loses" {
			continue
		}
		err = errors.Join(err, os.Remove(filepath.Join(s.path, e.Name())))
	}
	cp, merr := json.Marshal(counts)
	return cp, errors.Join(err, merr)
}
