package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// direction is a way to reach a plugin: in this process, or as its own.
type direction struct {
	kind    wire.Kind
	name    string
	process bool
	begin   func(dir string) (subject, error)
}

// subject is a plugin under test. Sessions of one subject live in one process.
type subject interface {
	describe(ctx context.Context) (wire.Description, error)
	prepare(ctx context.Context, c settings) (wire.Prepared, error)
	source(ctx context.Context, c settings) (source.Opened, error)
	sink(ctx context.Context, c settings, st sink.State) (sinkSession, error)
	stage(ctx context.Context, c settings, p wire.Prepared) (stage.Stage, error)

	// pid is the process's, 0 in-process. kill ends it as SIGKILL does.
	pid() int
	kill() error
	// said is all that the plugin logged and printed, and what was printed
	// on its standard output alone.
	said() (all, stdout []string)
	// end stops the plugin. It may be called twice.
	end() error
}

// sinkSession is an open sink, reached either way.
type sinkSession interface {
	Write(ctx context.Context, m *message.Message) (sink.Receipt, error)
	Flush(ctx context.Context) (sink.Checkpoint, error)
	Committed(ctx context.Context, c sink.Checkpoint) error
	Seals() bool
	Seal(ctx context.Context) error
	Merges() bool
	Merge(ctx context.Context, tasks []sink.TaskCheckpoint) (sink.Checkpoint, error)
	Close() error
}

// settings are a config as a host sends it, and the secrets beside it.
type settings struct {
	json    []byte
	secrets map[string]string
	stored  *vault
}

// vault keeps what a plugin had stored.
type vault struct {
	mu     sync.Mutex
	values map[string]string
}

func (c settings) value(_ context.Context, ref string) (string, error) {
	c.stored.mu.Lock()
	defer c.stored.mu.Unlock()
	if v, ok := c.stored.values[ref]; ok {
		return v, nil
	}
	if v, ok := c.secrets[ref]; ok {
		return v, nil
	}
	return "", fmt.Errorf("there is no secret %q", ref)
}

func (c settings) store(_ context.Context, ref, value string) error {
	c.stored.mu.Lock()
	defer c.stored.mu.Unlock()
	c.stored.values[ref] = value
	return nil
}

// settings returns the fixture's config for this case.
func (a *attempt) settings() settings {
	d, err := a.describe(a.ctx)
	a.must(err, "Describe")
	return settle(a.f.Config, d.Schema, a.dir)
}

// settle fills in the directory and takes the secrets out.
func settle(config map[string]any, schema []byte, dir string) settings {
	c := settings{secrets: map[string]string{}, stored: &vault{values: map[string]string{}}}
	var s map[string]any
	_ = json.Unmarshal(schema, &s) // describes-itself says what is wrong with it
	v := fill(plain(config), s, dir, "", c.secrets)
	if v == nil {
		v = map[string]any{}
	}
	c.json, _ = json.Marshal(v) // it came from JSON
	return c
}

// plain returns v as encoding/json would read it back: maps and lists of any.
func plain(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		return nil // Executable has looked
	}
	var out any
	_ = json.Unmarshal(b, &out) // just written
	return out
}

func fill(v any, schema map[string]any, dir, path string, secrets map[string]string) any {
	switch v := v.(type) {
	case string:
		v = strings.ReplaceAll(v, "{dir}", dir)
		if schema[spec.SecretMark] == true {
			secrets[path] = v
			return spec.SecretJSON(path)
		}
		return v
	case map[string]any:
		props, _ := schema["properties"].(map[string]any)
		more, _ := schema["additionalProperties"].(map[string]any)
		out := map[string]any{}
		for key, x := range v {
			sub, ok := props[key].(map[string]any)
			if !ok {
				sub = more
			}
			out[key] = fill(x, sub, dir, strings.TrimPrefix(path+"."+key, "."), secrets)
		}
		return out
	case []any:
		items, _ := schema["items"].(map[string]any)
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = fill(x, items, dir, fmt.Sprintf("%s[%d]", path, i), secrets)
		}
		return out
	}
	return v
}

// presets makes a config for a plugin of which nobody said how to configure
// it: what its schema requires, with a path below the case's directory.
func presets(ctx context.Context, d *direction) (map[string]any, error) {
	if d.kind == wire.KindSource {
		return nil, fmt.Errorf("a source needs a server with messages, and a config that leads there")
	}
	s, err := d.begin("")
	if err != nil {
		return nil, err
	}
	defer s.end() //nolint:errcheck // it was only asked what it is
	described, err := s.describe(ctx)
	if err != nil {
		return nil, err
	}
	var schema struct {
		Properties map[string]struct {
			Type     string `json:"type"`
			Examples []any  `json:"examples"`
		} `json:"properties"`
		Required []string `json:"required"`
	}
	if err := json.Unmarshal(described.Schema, &schema); err != nil {
		return nil, fmt.Errorf("read the schema of %s's config: %w", d.name, err)
	}
	out := map[string]any{}
	for _, key := range schema.Required {
		p := schema.Properties[key]
		switch {
		case p.Type == "string" && (key == "path" || key == "dir" || key == "directory"):
			out[key] = "{dir}/out"
		case len(p.Examples) > 0:
			out[key] = p.Examples[0]
		default:
			return nil, fmt.Errorf("the plugin's config needs %q, which the suite can't guess (its keys: %s)",
				key, strings.Join(slices.Sorted(maps.Keys(schema.Properties)), ", "))
		}
	}
	return out, nil
}
