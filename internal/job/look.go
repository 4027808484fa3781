package job

import (
	"context"
	"encoding/json"
	"os"
	"strings"

	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Change is a key of a source's config that the command line sets, whatever
// the file says.
type Change struct {
	Flag  string // for errors, as in "--uids"
	Key   string // its path in the config, as in "select.uids"
	Value any    // as JSON has it

	// Optional leaves it out where the plugin's config has no such key.
	Optional bool
}

// Looked is a source that was opened to be looked into, outside of any run.
type Looked struct {
	source.Opened
	Name     string
	Narrowed bool              // the config picks messages
	Vars     map[string]string // the source's, from the file
	// Exports says whether the file exports a mailbox; nil without a file.
	Exports func(message.Mailbox) bool
}

// Account is a source that stands in no file.
type Account struct {
	Name     string
	Plugin   string
	Config   map[string]any // of the plugin, without the password
	Password func(ctx context.Context) (string, error)
}

// passwordKey is the key of the password, and the reference to it.
const passwordKey = "password"

// Bare returns a job without a file. Only LookAt may be called, and Close.
func Bare(o Options) (*Job, error) {
	folder, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return newJob(o, folder)
}

// Look opens one source of the file, and nothing else: no ledger, no sink.
func (j *Job) Look(ctx context.Context, name string, changes []Change) (*Looked, error) {
	session, err := j.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	l, err := j.open(ctx, session, changes)
	if err != nil {
		if at := blame(err, session.Plugin, changes); at != nil {
			return nil, at
		}
		return nil, j.placeSource(name, err)
	}
	s := j.source(name)
	l.Vars, l.Exports = s.Vars, s.Mailboxes.Match
	return l, nil
}

// resolve checks the config of a source and evaluates its references.
func (j *Job) resolve(ctx context.Context, name string) (none pluginhost.SessionSpec, err error) {
	for _, bad := range j.File.BadRows {
		if bad.Name == name {
			return none, bad
		}
	}
	if err := j.Source(name); err != nil {
		return none, err
	}
	s := j.source(name)
	sc, err := j.schema(ctx, pluginhost.Source, s.Plugin)
	if err != nil {
		return none, j.File.Place(s.Key+".plugin", err)
	}
	if err := s.Config.CheckWith(sc); err != nil {
		return none, err
	}
	resolved, err := s.Config.ResolveWith(ctx, sc, j.values)
	if err != nil {
		return none, err
	}
	return j.session(name, s.Plugin, resolved), nil
}

// LookAt opens a source that stands in no file.
func (j *Job) LookAt(ctx context.Context, a Account, changes []Change) (*Looked, error) {
	c := map[string]any{passwordKey: spec.SecretJSON(passwordKey)}
	for key, value := range a.Config {
		c[key] = value
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, fault.New(fault.Bug, "write the config of %s: %w", a.Name, err)
	}
	session := pluginhost.SessionSpec{Name: a.Name, Plugin: a.Plugin, Config: raw, Spool: j.spool}
	session.Secrets.Value = func(ctx context.Context, _ string) (string, error) { return a.Password(ctx) }
	l, err := j.open(ctx, session, changes)
	if at := blame(err, a.Plugin, changes); at != nil {
		return nil, at
	}
	return l, err
}

// open opens a session with changes to its config. One connection is enough
// for a look.
func (j *Job) open(ctx context.Context, session pluginhost.SessionSpec, changes []Change) (*Looked, error) {
	var c map[string]any
	if err := json.Unmarshal(session.Config, &c); err != nil {
		return nil, fault.New(fault.Bug, "read the config of source %s: %w", session.Name, err)
	}
	if c == nil {
		c = map[string]any{}
	}
	if _, ok := c["connections"]; ok {
		c["connections"] = 1
	}
	changes, err := j.applicable(ctx, session.Plugin, changes)
	if err != nil {
		return nil, err
	}
	for _, change := range changes {
		set(c, strings.Split(change.Key, "."), change.Value)
	}
	if session.Config, err = json.Marshal(c); err != nil {
		return nil, fault.New(fault.Bug, "write the config of source %s: %w", session.Name, err)
	}
	opened, err := j.host.OpenSource(ctx, session, false)
	if err != nil {
		return nil, err
	}
	return &Looked{Opened: opened, Name: session.Name, Narrowed: narrowed(c)}, nil
}

// applicable returns the changes without the optional ones that the plugin has
// no key for.
func (j *Job) applicable(ctx context.Context, plugin string, changes []Change) ([]Change, error) {
	out := make([]Change, 0, len(changes))
	for _, change := range changes {
		if change.Optional {
			d, err := j.describe(ctx, pluginhost.Source, plugin)
			if err != nil {
				return nil, err
			}
			var schema struct{ Properties map[string]any }
			if err := json.Unmarshal(d.Schema, &schema); err != nil {
				return nil, fault.New(fault.Bug, "read the config schema of plugin %s: %w", plugin, err)
			}
			first, _, _ := strings.Cut(change.Key, ".")
			if _, ok := schema.Properties[first]; !ok {
				continue
			}
		}
		out = append(out, change)
	}
	return out, nil
}

func set(c map[string]any, path []string, value any) {
	for _, step := range path[:len(path)-1] {
		next, ok := c[step].(map[string]any)
		if !ok {
			next = map[string]any{}
			c[step] = next
		}
		c = next
	}
	c[path[len(path)-1]] = value
}

// narrowed reports whether a config picks messages, by the keys that all our
// sources have for it.
func narrowed(c map[string]any) bool {
	for _, key := range []string{"select", "search"} {
		switch v := c[key].(type) {
		case map[string]any:
			for _, part := range v {
				if part != "" && part != nil {
					return true
				}
			}
		case string:
			if v != "" {
				return true
			}
		}
	}
	return false
}

// blame puts an error of a key that the command line set at its flag. It
// returns nil when that isn't what is wrong.
func blame(err error, plugin string, changes []Change) error {
	f := fault.As(err)
	if f == nil || f.Class != fault.Config || f.Key == "" {
		return nil
	}
	for _, change := range changes {
		if f.Key != change.Key && !strings.HasPrefix(change.Key, f.Key+".") && !strings.HasPrefix(f.Key, change.Key+"[") {
			continue
		}
		text := strings.TrimPrefix(f.Text, f.Key+": ")
		if strings.HasPrefix(text, "unknown key") {
			return fault.New(fault.Config, "%s: a source of the plugin %s has no %s", change.Flag, plugin, change.Key).
				WithHint("leave it out: pipeline ls SOURCE MAILBOX lists all")
		}
		e := fault.New(fault.Config, "%s: %s", change.Flag, text)
		e.Hint = f.Hint
		return e
	}
	return nil
}
