package job

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// Program is an executable that takes part in a run.
type Program struct {
	Name    string // as in "source imap"
	Version string
	SHA256  string // hex, of the executable; empty for a plugin that was attached to: which one that is, nobody knows
}

// Programs returns the plugins that the plan uses, each once.
func (j *Job) Programs(ctx context.Context) ([]Program, error) {
	var out []Program
	seen := map[string]bool{}
	add := func(kind pluginhost.Kind, name string) error {
		key := kind.String() + " " + name
		if seen[key] {
			return nil
		}
		seen[key] = true
		d, err := j.describe(ctx, kind, name)
		if err != nil {
			return err
		}
		id, err := j.host.Identity(kind, name)
		if err != nil {
			return err
		}
		sum := ""
		if !id.Modified.IsZero() {
			if sum, err = HashFile(id.Path); err != nil {
				return err
			}
		}
		out = append(out, Program{key, d.Version, sum})
		return nil
	}
	for i := range j.Plan.Sources {
		if err := add(pluginhost.Source, j.Plan.Sources[i].Plugin); err != nil {
			return nil, err
		}
	}
	for _, s := range j.Plan.Chain.Stages() {
		if s.Plugin == "" {
			continue
		}
		if err := add(pluginhost.Stage, s.Plugin); err != nil {
			return nil, err
		}
	}
	for i := range j.Plan.Sinks {
		if err := add(pluginhost.Sink, j.Plan.Sinks[i].Plugin); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// HashFile returns the sha256 of a file in hex.
func HashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.Wrap(fault.Config, err, "hash %s", path)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fault.Wrap(fault.Config, err, "hash %s", path)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Redacted returns the pipeline file as JSON without its secrets.
func (j *Job) Redacted(ctx context.Context) []byte {
	return j.File.Redacted(func(kind, plugin string) *config.PluginSchema {
		k := pluginhost.Source
		if kind == "sink" {
			k = pluginhost.Sink
		}
		d, err := j.describe(ctx, k, plugin)
		if err != nil {
			return nil
		}
		s, err := config.ParseSchema(d.Schema)
		if err != nil {
			return nil
		}
		return s
	})
}
