package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/test/fenced"
	"github.com/mailhaul/pipeline/test/s3server"
)

// fencedMail is message n, with a name that is cut for every third.
func fencedMail(n int, prepared pluginhost.Prepared) *message.Message {
	subject := fmt.Sprint("Message ", n)
	if n%3 == 0 {
		subject = strings.Repeat("a long subject ", 40)
	}
	octets := fmt.Sprintf("From: bob@example.org\r\nTo: alice@example.org\r\nSubject: %s\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\nMessage-ID: <m%d@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nline\r\n--b\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\npaper %d\r\n--b--\r\n", subject, n, n)
	m := &message.Message{}
	m.ID = message.ID{Source: "alice", Mailbox: "Projects/2006", UIDValidity: 1, UID: uint32(n)}
	m.Have = prepared.Needs & message.AllSummary
	m.Size, m.InternalDate = int64(len(octets)), time.Unix(1136214245, 0).UTC()
	m.Header = message.NewHeader([]byte(octets[:strings.Index(octets, "\r\n\r\n")+4]))
	if prepared.Record {
		m.Record = &message.Record{Octets: m.Size, SHA256: fmt.Sprintf("%064d", n), Files: map[string]string{"archive": m.ID.Hash() + ".eml"}}
		return m
	}
	m.Have |= message.NeedBody
	m.Body = message.BodyOf([]byte(octets))
	return m
}

// fenceSession is a session of a sink of this test.
type fenceSession struct {
	*pluginhost.SinkSession
	t        *testing.T
	prepared pluginhost.Prepared
}

// fenceSink opens sessions of one sink.
type fenceSink func(f sink.Fence, cp sink.Checkpoint) *fenceSession

func (s *fenceSession) write(from, to int, change func(*message.Message)) {
	s.t.Helper()
	lane, err := s.Lane(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	results := make(chan error, to-from)
	for n := from; n < to; n++ {
		m := fencedMail(n, s.prepared)
		if change != nil {
			change(m)
		}
		if err := lane.Put(s.t.Context(), m, func(_ sink.Receipt, err error) { results <- err }); err != nil {
			s.t.Fatal(err)
		}
	}
	for range to - from {
		if err := <-results; err != nil {
			s.t.Fatal(err)
		}
	}
	if err := lane.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fenceSession) flush() sink.Checkpoint {
	s.t.Helper()
	cp, err := s.Flush(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return cp
}

func (s *fenceSession) commit() sink.Checkpoint {
	s.t.Helper()
	cp := s.flush()
	if err := s.Committed(s.t.Context(), cp); err != nil {
		s.t.Fatal(err)
	}
	return cp
}

func (s *fenceSession) shut() {
	s.t.Helper()
	if err := s.Close(context.WithoutCancel(s.t.Context())); err != nil {
		s.t.Fatal(err)
	}
}

// Each sink that writes to a bucket may be written to by owners of tasks. What
// they leave is, but for the fences, what one session leaves in a folder: also
// when one lost its task and went on without knowing it.
func TestTasksLeaveWhatOneRunLeaves(t *testing.T) {
	t.Parallel()
	if err := buildStore(); err != nil {
		t.Fatal(err)
	}
	bin, err := builds()
	if err != nil {
		t.Fatal(err)
	}
	s3 := s3server.Start(t, "mail")
	host, err := pluginhost.New(pluginhost.Options{Dirs: []string{bin.dir}, Env: s3.Environ(), StartTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Log(err)
		}
	})
	store, err := host.Store()
	if err != nil {
		t.Fatal(err)
	}
	local := t.TempDir()
	at := func(plugin, path string) fenceSink {
		config, err := json.Marshal(map[string]string{"path": path})
		if err != nil {
			t.Fatal(err)
		}
		spec := pluginhost.SessionSpec{Name: "out", Plugin: plugin, Config: config, Spool: &message.Spool{}}
		return func(f sink.Fence, cp sink.Checkpoint) *fenceSession {
			prepared, err := host.Prepare(t.Context(), pluginhost.Sink, spec)
			if err != nil {
				t.Fatal(err)
			}
			if prepared.Fenced != strings.Contains(path, "://") {
				t.Errorf("%s says of %s that it may have several writers: %v", plugin, path, prepared.Fenced)
			}
			s, err := host.OpenSink(t.Context(), spec, sink.State{Pipeline: "p1", Checkpoint: cp, Known: cp != nil, Store: store, Fence: f}, false)
			if err != nil {
				t.Fatalf("open %s: %v", path, err)
			}
			return &fenceSession{s, t, prepared}
		}
	}
	early := func(m *message.Message) { // a record of before, to be replaced
		if m.Record != nil {
			m.Record.Files = nil
		}
	}
	again := func(m *message.Message) { m.Record.Replaces = true }
	for plugin, name := range map[string]string{"eml": "eml", "msg": "msg", "attachments": "attachments", "json": "index.jsonl"} {
		one := at(plugin, filepath.Join(local, name))(sink.Fence{}, nil)
		one.write(1, 31, nil)
		one.commit()
		one.shut()

		open := at(plugin, s3.Address("mail/"+name))
		lost := open(sink.Fence{Task: "a", Number: 5}, nil)
		lost.write(1, 6, nil)
		cp := lost.commit()
		lost.write(6, 10, nil)
		lost.flush()
		later := open(sink.Fence{Task: "a", Number: 91}, cp)
		later.write(6, 11, early)
		cp = later.commit()
		if later.prepared.Record {
			later.write(6, 11, again)
			cp = later.commit()
		}
		later.shut()
		lost.write(8, 16, nil)
		lost.flush()
		other := open(sink.Fence{Task: "b", Number: 36}, nil)
		other.write(11, 31, nil)
		theirs := other.commit()
		other.shut()

		tasks := []sink.TaskCheckpoint{
			{Task: "a", Fence: 91, Done: true, Checkpoint: cp}, {Task: "none", Fence: 3, Done: true}, {Task: "b", Fence: 36, Done: true, Checkpoint: theirs},
		}
		var merged sink.Checkpoint
		for range 2 {
			m := open(sink.Fence{}, merged)
			if merged, err = m.Merge(t.Context(), tasks); err != nil {
				t.Fatalf("%s: merge: %v", plugin, err)
			}
			if err := m.Committed(t.Context(), merged); err != nil {
				t.Fatal(err)
			}
			m.shut()
			fenced.Equal(t, fenced.Output(t, filepath.Join(s3.Folder, "mail", name)), fenced.Output(t, filepath.Join(local, name)))
			lost.write(8, 20, nil) // to be merged again
			lost.flush()
		}
		lost.shut()
	}
}
