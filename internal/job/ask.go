package job

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// askAll asks the file's plugins what they are, all at once, but for those
// whose answer is remembered: started one after another they would take as long
// as all together. describe waits for the answers, in its own order.
func (j *Job) askAll(ctx context.Context) {
	j.asked = map[string]func() (pluginhost.Description, error){}
	seen := map[string]bool{} // 3,000 sources may name one
	ask := func(kind pluginhost.Kind, name string) {
		key := kind.String() + " " + name
		if _, known := j.described[key]; known || seen[key] || name == "" {
			return
		}
		seen[key] = true
		was, err := j.recall(ctx, "describe "+key, kind, name)
		if err != nil {
			return // it comes up again where the answer is wanted
		}
		var d pluginhost.Description
		if was.Answer != nil && json.Unmarshal(was.Answer, &d) == nil {
			j.described[key] = d
			return
		}
		answer := sync.OnceValues(func() (pluginhost.Description, error) { return j.host.Describe(ctx, kind, name) })
		j.asked[key] = answer
		go func() { _, _ = answer() }() // describe takes it
	}
	for i := range j.File.Sources {
		ask(pluginhost.Source, j.File.Sources[i].Plugin)
	}
	for i := range j.File.Sinks {
		ask(pluginhost.Sink, j.File.Sinks[i].Plugin)
	}
	for i, c := range j.File.Plugins {
		if c != nil && j.File.Stages[i] != nil {
			ask(pluginhost.Stage, j.File.Stages[i].Plugin)
		}
	}
}

// describe asks a plugin what it is, once for each build of it: a run that
// finds nothing new starts no sink.
func (j *Job) describe(ctx context.Context, kind pluginhost.Kind, name string) (pluginhost.Description, error) {
	key := kind.String() + " " + name
	if d, ok := j.described[key]; ok {
		return d, nil
	}
	d, err := remember(ctx, j, "describe "+key, kind, name, func() (pluginhost.Description, error) {
		if asked := j.asked[key]; asked != nil {
			delete(j.asked, key)
			return asked()
		}
		return j.host.Describe(ctx, kind, name)
	})
	if err == nil {
		j.described[key] = d
	}
	return d, err
}

// schema reads the schema of a plugin's config, once.
func (j *Job) schema(ctx context.Context, kind pluginhost.Kind, name string) (*config.PluginSchema, error) {
	key := kind.String() + " " + name
	if s := j.schemas[key]; s != nil {
		return s, nil
	}
	d, err := j.describe(ctx, kind, name)
	if err != nil {
		return nil, err
	}
	s, err := config.ParseSchema(d.Schema)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", name, err)
	}
	j.schemas[key] = s
	return s, nil
}

// answered is what a build of a plugin said, as the ledger keeps it.
type answered struct {
	Build  string          `json:"build"`
	Answer json.RawMessage `json:"answer"`
}

// remember keeps a plugin's answer in the ledger, for as long as its
// executable is the same: another build's answer takes its place. Of a plugin
// that was attached to nothing is kept, as it may differ each time.
func remember[T any](ctx context.Context, j *Job, key string, kind pluginhost.Kind, name string, ask func() (T, error)) (T, error) {
	var answer T
	was, err := j.recall(ctx, key, kind, name)
	if err != nil {
		return answer, err
	}
	if was.Build == "" {
		return ask()
	}
	if was.Answer != nil && json.Unmarshal(was.Answer, &answer) == nil {
		return answer, nil
	}
	if answer, err = ask(); fault.Is(err, fault.Crashed) {
		answer, err = ask() // its death costs the run nothing, unless it always dies
	}
	if err != nil {
		return answer, err
	}
	var held []byte
	was.Answer, err = json.Marshal(answer)
	if err == nil {
		held, err = json.Marshal(was)
	}
	if err != nil {
		return answer, err
	}
	return answer, j.ledger.Remember(ctx, key, held)
}

// recall returns what the ledger keeps of an answer: nothing but the build
// where another build gave it, and not even that where nothing may be kept.
func (j *Job) recall(ctx context.Context, key string, kind pluginhost.Kind, name string) (answered, error) {
	if j.ledger == nil {
		return answered{}, nil
	}
	id, err := j.host.Identity(kind, name)
	if err != nil || id == (pluginhost.Identity{Path: id.Path}) {
		return answered{}, err
	}
	build := fmt.Sprintf("%s %d %d", id.Path, id.Size, id.Modified.UnixNano())
	held, err := j.ledger.Recall(ctx, key)
	if err != nil {
		return answered{}, err
	}
	var was answered
	if held != nil && json.Unmarshal(held, &was) == nil && was.Build == build {
		return was, nil
	}
	return answered{Build: build}, nil
}
