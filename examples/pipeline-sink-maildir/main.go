// Command pipeline-sink-maildir, an example, writes a Maildir for each mailbox.
package main

import (
	"context"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
	"path/filepath"
	"slices"
)

type config struct {
	Path string `json:"path" required:"true" doc:"directory of the Maildirs"`
}

type maildirs struct {
	*target.Dir // brings Close, and the promises that a sink must keep
	names       *naming.Template
}

func main() {
	sink.Serve(sink.Plugin[config]{Name: "maildir", Version: "0.1.0", Summary: "a Maildir for each mailbox", Prepare: prepare, Open: open})
}

func prepare(c config) (sink.Prepared, error) {
	path, err := filepath.Abs(c.Path)
	return sink.Prepared{Target: path, Lanes: 4, Needs: message.NeedBody | message.NeedFlags | message.NeedInternalDate}, err
}

func open(ctx context.Context, c config, st sink.State) (sink.Sink, error) {
	names, err := naming.Parse("{source}/{mailbox}/cur/{uid}-{hash}", naming.Options{})
	if err != nil {
		return nil, err
	}
	dir, err := target.OpenDir(ctx, c.Path, target.Owner{
		Sink: st.Name, Pipeline: st.Pipeline, Known: st.Known, Adopt: st.Adopt, Rewrite: st.Rewrite}, st.Checkpoint)
	return &maildirs{dir, names}, err
}

func (s *maildirs) Flush(ctx context.Context) (sink.Checkpoint, error) { return s.Dir.Flush(ctx) }
func (s *maildirs) Write(_ context.Context, m *message.Message) (sink.Receipt, error) {
	f, err := s.Create()
	if err != nil {
		return sink.Receipt{}, err
	}
	if _, err := m.Body.WriteTo(f); err != nil {
		f.Discard()
		return sink.Receipt{}, err
	}
	r := sink.Receipt{Path: s.names.Name(&m.Summary) + ":2,", Octets: f.Size()}
	for i, flag := range []string{`\Draft`, `\Flagged`, `\Answered`, `\Seen`, `\Deleted`} {
		if slices.Contains(m.Flags, flag) {
			r.Path += "DFRST"[i : i+1]
		}
	}
	return r, f.Place(m.ID, r.Path, m.InternalDate)
}
