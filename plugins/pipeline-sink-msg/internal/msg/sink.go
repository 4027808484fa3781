package msg

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
)

// files is a session: a directory of .msg files.
type files struct {
	dir        target.Files
	template   *naming.Template
	options    convert.Options
	converters sync.Pool // of *convert.Converter
	log        *slog.Logger
}

// Open opens the directory as it was at the checkpoint.
func Open(ctx context.Context, c Config, st sink.State) (sink.Sink, error) {
	s := &files{log: st.Log}
	if s.log == nil {
		s.log = slog.Default()
	}
	var err error
	if s.template, err = c.template(st.Fence.Number); err != nil {
		return nil, err
	}
	if s.options, err = c.options(); err != nil {
		return nil, err
	}
	s.dir, err = target.Open(ctx, c.Path, target.Owner{
		Sink: st.Name, Pipeline: st.Pipeline, Known: st.Known, Adopt: st.Adopt, Rewrite: st.Rewrite,
		Store: st.Store, Spool: st.Spool, Fence: target.Fence(st.Fence),
	}, st.Checkpoint)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Write converts the message and stores it under its name. The whole mail is
// read before the first octet is written, so that a body that ends in an error
// leaves nothing behind.
func (s *files) Write(ctx context.Context, m *message.Message) (sink.Receipt, error) {
	if m.Body == nil {
		return sink.Receipt{}, fault.New(fault.Bug, "message %v came to the msg sink without a body", m.ID)
	}
	whole, err := m.Body.Whole(ctx)
	if err != nil {
		return sink.Receipt{}, fault.Wrap(fault.Unavailable, err, "read %v", m.ID)
	}
	c, _ := s.converters.Get().(*convert.Converter)
	if c == nil {
		c = convert.New(s.options)
	}
	if err := s.convert(c, whole, m); err != nil {
		return sink.Receipt{}, fault.Wrap(fault.Unavailable, err, "convert %v", m.ID)
	}
	defer s.converters.Put(c)
	sum := &m.Summary
	if sum.Header == nil && s.template.Needs().Has(message.NeedHeaders) {
		named := m.Summary
		named.Header = c.Header()
		sum = &named
	}
	f, err := s.dir.Create()
	if err != nil {
		return sink.Receipt{}, err
	}
	if _, err := c.WriteTo(f); err != nil {
		f.Discard()
		return sink.Receipt{}, fault.Wrap(fault.Unavailable, err, "write %v", m.ID)
	}
	r := sink.Receipt{Path: s.template.Name(sum), Octets: f.Size()}
	if err := f.Place(m.ID, r.Path, m.InternalDate); err != nil {
		return sink.Receipt{}, fault.Wrap(fault.Bug, err, "write %v", m.ID)
	}
	return r, nil
}

// convert runs the converter. A mail that breaks it is one bad message (I6): it
// becomes a dead letter, and what happened stands in the log. The converter is
// then not used again.
func (s *files) convert(c *convert.Converter, whole *message.Whole, m *message.Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("the converter broke on a message", "id", m.ID.String(), "panic", p, "stack", string(debug.Stack()))
			err = fault.New(fault.Message, "the converter broke: %v", p).WithReason("converter_bug").
				WithHint("export this message with the eml sink, and report the bug with it")
		}
	}()
	return c.Convert(whole, whole.Size(), convert.Envelope{
		InternalDate: m.InternalDate, HaveFlags: m.Have.Has(message.NeedFlags), Flags: m.Flags, Keywords: m.Keywords,
	})
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
