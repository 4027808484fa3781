package job

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"

	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// Convert has a sink plugin write one message into an empty folder, and
// returns the file's path: for a sink whose config needs a path alone.
func (j *Job) Convert(ctx context.Context, plugin, folder string, m *message.Message) (_ string, err error) {
	if _, err := j.host.Find(pluginhost.Sink, plugin); err != nil {
		return "", err
	}
	raw, err := json.Marshal(map[string]string{"path": folder})
	if err != nil {
		return "", fault.New(fault.Bug, "write the config of sink plugin %s: %w", plugin, err)
	}
	session, err := j.host.OpenSink(ctx, pluginhost.SessionSpec{Name: plugin, Plugin: plugin, Config: raw, Spool: j.spool}, sink.State{Name: plugin, Pipeline: plugin}, false)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, session.Close(context.WithoutCancel(ctx))) }()
	lane, err := session.Lane(ctx)
	if err != nil {
		return "", err
	}
	type answer struct {
		receipt sink.Receipt
		err     error
	}
	answered := make(chan answer, 1)
	err = lane.Put(ctx, m, func(r sink.Receipt, err error) { answered <- answer{r, err} })
	if err != nil {
		return "", errors.Join(err, lane.Close())
	}
	a := <-answered
	if err := errors.Join(a.err, lane.Close()); err != nil {
		return "", err
	}
	if _, err := session.Flush(ctx); err != nil {
		return "", err
	}
	if a.receipt.Path == "" {
		return "", fault.New(fault.Config, "sink plugin %s writes no file for a message", plugin).WithHint("use eml, json or msg")
	}
	return filepath.Join(folder, filepath.FromSlash(a.receipt.Path)), nil
}
