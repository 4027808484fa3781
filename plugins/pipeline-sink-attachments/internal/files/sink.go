package files

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/mailhaul/pipeline/pkg/attachment"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// files is a session: a directory of folders.
type files struct {
	dir      target.Files
	template *naming.Template
	only     attachment.Filter
}

// checkpoint is the token of this sink. It isn't that of a directory with one
// file a message: who reads such a manifest must not take ours for one.
type checkpoint struct {
	Attachments json.RawMessage `json:"attachments"`
}

// Open opens the directory as it was at the checkpoint.
func Open(ctx context.Context, c Config, st sink.State) (sink.Sink, error) {
	p, err := Prepare(c)
	if err != nil {
		return nil, err
	}
	t, err := c.template(st.Fence.Number)
	if err != nil {
		return nil, err
	}
	var cp checkpoint
	if st.Checkpoint != nil {
		if err := json.Unmarshal(st.Checkpoint, &cp); err != nil || cp.Attachments == nil {
			return nil, fault.New(fault.Bug, "the checkpoint %q of the target %s can't be read", st.Checkpoint, p.Target)
		}
	}
	dir, err := target.Open(ctx, c.Path, target.Owner{
		Sink: st.Name, Pipeline: st.Pipeline, Known: st.Known, Adopt: st.Adopt, Rewrite: st.Rewrite,
		Store: st.Store, Spool: st.Spool, Fence: target.Fence(st.Fence),
	}, cp.Attachments)
	if err != nil {
		return nil, err
	}
	return &files{dir: dir, template: t, only: c.Only}, nil
}

// Write stores the attachments that are wanted. The receipt names the folder;
// a message without any has none.
func (s *files) Write(ctx context.Context, m *message.Message) (sink.Receipt, error) {
	if m.Body == nil {
		return sink.Receipt{}, fault.New(fault.Bug, "message %v came to the attachments sink without a body", m.ID)
	}
	// A name hangs on the whole structure, which only the last octet tells.
	whole, err := m.Body.Whole(ctx)
	if err != nil {
		return sink.Receipt{}, err
	}
	root, _, err := whole.Entities()
	if err != nil {
		return sink.Receipt{}, fault.Wrap(fault.Unavailable, err, "read %v", m.ID)
	}
	// Numbers are given among all attachments: what the filter leaves out
	// must not change the names of the others.
	var names []string
	at := map[*message.Part]int{}
	for i, p := range message.Attachments(root.Part) {
		at[p] = i
		names = append(names, nameOf(p))
	}
	wanted := s.only.Of(root)
	if len(wanted) == 0 {
		return sink.Receipt{}, nil
	}
	names = naming.Together(names, fileMost)
	sum := &m.Summary
	if sum.Header == nil {
		h, err := root.Header()
		if err != nil {
			return sink.Receipt{}, fault.Wrap(fault.Unavailable, err, "read the header of %v", m.ID)
		}
		named := m.Summary
		named.Header = h
		sum = &named
	}
	r := sink.Receipt{Path: s.template.Name(sum)}
	for _, e := range wanted {
		n, err := s.put(m, e, r.Path+"/"+names[at[e.Part]])
		if err != nil {
			return sink.Receipt{}, err
		}
		r.Octets += n
	}
	return r, nil
}

// put writes one attachment.
func (s *files) put(m *message.Message, e *message.Entity, name string) (int64, error) {
	f, err := s.dir.Create()
	if err != nil {
		return 0, err
	}
	if _, err := f.ReadFrom(e.Open()); err != nil {
		f.Discard()
		return 0, fault.Wrap(fault.Unavailable, err, "write part %s of %v", e.Part.Path, m.ID)
	}
	n := f.Size()
	if err := f.PlacePart(m.ID, e.Part.Path, name, m.InternalDate); err != nil {
		return 0, fault.Wrap(fault.Bug, err, "write part %s of %v", e.Part.Path, m.ID)
	}
	return n, nil
}

// Seal ends an epoch: the next one's files are written while Flush makes its own
// durable.
func (s *files) Seal(ctx context.Context) error { return target.Seal(ctx, s.dir) }

// Flush makes the files durable, with the manifest.
func (s *files) Flush(ctx context.Context) (sink.Checkpoint, error) {
	cp, err := s.dir.Flush(ctx)
	if cp == nil {
		return nil, err
	}
	b, wrong := json.Marshal(checkpoint{cp})
	if wrong != nil {
		return nil, wrong
	}
	return b, err // of single messages: message.Refusals
}

// Committed tells a target in a bucket what the ledger has.
func (s *files) Committed(ctx context.Context, c sink.Checkpoint) error {
	var cp checkpoint
	if err := json.Unmarshal(c, &cp); err != nil {
		return fault.New(fault.Bug, "the checkpoint %q can't be read: %w", c, err)
	}
	return s.dir.Committed(ctx, cp.Attachments)
}

// Merge makes one manifest of those that tasks left in a bucket.
func (s *files) Merge(ctx context.Context, tasks []sink.TaskCheckpoint) (sink.Checkpoint, error) {
	list := make([]target.Task, len(tasks))
	for i, t := range tasks {
		var cp checkpoint
		if t.Checkpoint != nil {
			if err := json.Unmarshal(t.Checkpoint, &cp); err != nil || cp.Attachments == nil {
				return nil, fault.New(fault.Bug, "the checkpoint %q of the task %s can't be read", t.Checkpoint, t.Task)
			}
		}
		list[i] = target.Task{ID: t.Task, Fence: t.Fence, Done: t.Done, Checkpoint: cp.Attachments}
	}
	cp, err := target.Merge(ctx, s.dir, list)
	if err != nil {
		return nil, err
	}
	return json.Marshal(checkpoint{cp})
}

// Close lets go of the directory.
func (s *files) Close() error { return s.dir.Close() }

// endings are those of attachments that have no name, by media type. They are
// ours and few: a system's own table would give other names on another machine.
var endings = map[string]string{
	"application/pdf": ".pdf", "application/zip": ".zip", "application/ms-tnef": ".dat",
	"application/pkcs7-mime": ".p7m", "application/pkcs7-signature": ".p7s", "application/pgp-signature": ".asc",
	"image/gif": ".gif", "image/jpeg": ".jpg", "image/png": ".png", "image/svg+xml": ".svg", "image/webp": ".webp",
	"message/rfc822": ".eml", "message/global": ".eml",
	"text/calendar": ".ics", "text/csv": ".csv", "text/html": ".html", "text/plain": ".txt", "text/vcard": ".vcf",
}

// nameOf returns the name that the sender gave, or one by the media type.
func nameOf(p *message.Part) string {
	if strings.Trim(p.Name, ". ") != "" {
		return p.Name
	}
	if ending, ok := endings[p.MediaType]; ok {
		return "attachment" + ending
	}
	return "attachment.bin"
}
