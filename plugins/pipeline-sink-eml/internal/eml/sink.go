package eml

import (
	"bytes"
	"context"
	"io"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// files is a session: a directory of .eml files.
type files struct {
	dir      target.Files
	template *naming.Template
}

// Open opens the directory as it was at the checkpoint.
func Open(ctx context.Context, c Config, st sink.State) (sink.Sink, error) {
	t, err := c.template(st.Fence.Number)
	if err != nil {
		return nil, err
	}
	dir, err := target.Open(ctx, c.Path, target.Owner{
		Sink: st.Name, Pipeline: st.Pipeline, Known: st.Known, Adopt: st.Adopt, Rewrite: st.Rewrite,
		Store: st.Store, Spool: st.Spool, Fence: target.Fence(st.Fence),
	}, st.Checkpoint)
	if err != nil {
		return nil, err
	}
	return &files{dir: dir, template: t}, nil
}

// Write stores the octets under the message's name.
func (s *files) Write(_ context.Context, m *message.Message) (sink.Receipt, error) {
	if m.Body == nil {
		return sink.Receipt{}, fault.New(fault.Bug, "message %v came to the eml sink without a body", m.ID)
	}
	var body io.WriterTo = m.Body
	sum := &m.Summary
	if sum.Header == nil && s.template.Needs().Has(message.NeedHeaders) {
		header, rest, err := splitHeader(m.Body)
		if err != nil {
			return sink.Receipt{}, fault.Wrap(fault.Unavailable, err, "read the header of %v", m.ID)
		}
		named := m.Summary
		named.Header = message.NewHeader(header)
		sum, body = &named, rest
	}
	f, err := s.dir.CreateFor(m.Body)
	if err != nil {
		return sink.Receipt{}, err
	}
	if _, err := body.WriteTo(f); err != nil {
		f.Discard()
		return sink.Receipt{}, fault.Wrap(fault.Unavailable, err, "write %v", m.ID)
	}
	r := sink.Receipt{Path: s.template.Name(sum), Octets: f.Size()}
	if err := f.Place(m.ID, r.Path, m.InternalDate); err != nil {
		return sink.Receipt{}, fault.Wrap(fault.Bug, err, "write %v", m.ID)
	}
	return r, nil
}

// Seal ends an epoch: the next one's files are written while Flush makes its own
// durable.
func (s *files) Seal(ctx context.Context) error { return target.Seal(ctx, s.dir) }

// Flush makes the files durable, with the manifest.
func (s *files) Flush(ctx context.Context) (sink.Checkpoint, error) { return s.dir.Flush(ctx) }

// Committed tells a target in a bucket what the ledger has.
func (s *files) Committed(ctx context.Context, c sink.Checkpoint) error {
	return s.dir.Committed(ctx, c)
}

// Merge makes one manifest of those that tasks left in a bucket.
func (s *files) Merge(ctx context.Context, tasks []sink.TaskCheckpoint) (sink.Checkpoint, error) {
	list := make([]target.Task, len(tasks))
	for i, t := range tasks {
		list[i] = target.Task{ID: t.Task, Fence: t.Fence, Done: t.Done, Checkpoint: t.Checkpoint}
	}
	return target.Merge(ctx, s.dir, list)
}

// Close lets go of the directory.
func (s *files) Close() error { return s.dir.Close() }

// maxHeader bounds what is read ahead to find the end of a header.
const maxHeader = 1 << 20

// splitHeader reads the header block off a body whose header didn't come with
// the summary, and returns it with a writer of all octets.
func splitHeader(b *message.Body) ([]byte, io.WriterTo, error) {
	head, whole := b.Bytes()
	if whole {
		return headerOf(head), b, nil
	}
	buf := make([]byte, 0, 16<<10)
	for len(buf) < maxHeader {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := b.Read(buf[len(buf):cap(buf)])
		from := max(len(buf)-3, 0)
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return headerOf(buf), bytes.NewReader(buf), nil
		}
		if err != nil {
			return nil, nil, err
		}
		if headerEnd(buf, from) >= 0 {
			break
		}
	}
	return headerOf(buf), joined{bytes.NewReader(buf), b}, nil
}

// headerOf returns the octets up to and with the empty line.
func headerOf(b []byte) []byte {
	for _, empty := range []string{"\n", "\r\n"} {
		if bytes.HasPrefix(b, []byte(empty)) {
			return b[:len(empty)]
		}
	}
	if end := headerEnd(b, 0); end >= 0 {
		return b[:end]
	}
	return b
}

// headerEnd returns where the header ends, looking for the empty line from
// octet from on; -1 when it isn't there.
func headerEnd(b []byte, from int) int {
	for i := from; i < len(b); i++ {
		if b[i] != '\n' {
			continue
		}
		switch rest := b[i+1:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return i + 2
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 3
		}
	}
	return -1
}

// joined is what was read ahead, and the rest.
type joined struct {
	head *bytes.Reader
	rest *message.Body
}

func (j joined) WriteTo(w io.Writer) (int64, error) {
	n, err := j.head.WriteTo(w)
	if err != nil {
		return n, err
	}
	m, err := j.rest.WriteTo(w)
	return n + m, err
}
