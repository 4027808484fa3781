// Package job puts together what a run is made of: the file, the plugins that
// it names, what they say of themselves, and the plan that follows.
package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/lockfile"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/internal/secrets"
	"github.com/mailhaul/pipeline/internal/shard"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// Options say where things are.
type Options struct {
	File    string   // path of the pipeline file
	Plugins []string // folders to look for plugins in, before the usual places
	Values  config.Values
	Log     *slog.Logger
	Profile string // folder for profiles of the plugins, absolute; empty: none

	// Mistaken loads a file with mistakes as well, as far as it can be read:
	// for Check alone, which then tells of those and its own together.
	Mistaken bool

	Shard shard.Shard // of the accounts, those that fall to it; zero: all
}

// Job is a pipeline file with its plugins. Close must be called.
type Job struct {
	File   *config.File
	Plan   *plan.Plan
	wrong  config.Problems // what the file alone shows to be wrong
	folder string          // of the file
	values config.Values
	host   *pluginhost.Host
	ledger *ledger.Ledger // nil: nothing is remembered
	shard  shard.Shard
	others []string // sources that fall to other shards
	base   string   // state directory of all shards together

	asked     map[string]func() (pluginhost.Description, error) // by kind and name: waits for what describe wants
	described map[string]pluginhost.Description                 // the same
	schemas   map[string]*config.PluginSchema                   // the same
	sources   map[string]pluginhost.SessionSpec                 // by the source's name
	sinks     map[string]pluginhost.SessionSpec
	stages    map[string]pluginhost.SessionSpec
	spool     *message.Spool
}

// Load reads the file and finds its plugins. It starts nothing and evaluates
// nothing.
func Load(o Options) (*Job, error) {
	f, err := config.Load(o.File)
	var wrong config.Problems
	if err != nil && (f == nil || !o.Mistaken || !errors.As(err, &wrong)) {
		return nil, err
	}
	folder, err := filepath.Abs(filepath.Dir(o.File))
	if err != nil {
		return nil, fmt.Errorf("find the folder of %s: %w", o.File, err)
	}
	j, err := newJob(o, folder)
	if err != nil {
		return nil, err
	}
	j.File, j.wrong, j.shard, j.values.Shard = f, wrong, o.Shard, o.Shard.Name()
	j.others = f.Divide(o.Shard)
	return j, nil
}

// newJob returns a job without a file. Plugins work in the folder.
func newJob(o Options, folder string) (*Job, error) {
	ho := pluginhost.FromEnvironment(o.Plugins)
	ho.Log, ho.WorkDir, ho.Profile = o.Log, folder, o.Profile
	pins, err := lockfile.Read(folder)
	if err != nil {
		return nil, err
	}
	if pins != nil {
		ho.Pins = map[string]string{}
	}
	for _, p := range pins {
		ho.Pins[p.Executable()] = p.SHA256
	}
	host, err := pluginhost.New(ho)
	if err != nil {
		return nil, err
	}
	return &Job{
		folder: folder, values: o.Values, host: host,
		schemas:   map[string]*config.PluginSchema{},
		described: map[string]pluginhost.Description{},
		sources:   map[string]pluginhost.SessionSpec{},
		sinks:     map[string]pluginhost.SessionSpec{},
		stages:    map[string]pluginhost.SessionSpec{},
		spool:     &message.Spool{},
	}, nil
}

// Settle evaluates the references in the file's state and vars: what a run
// must know before anything else.
func (j *Job) Settle(ctx context.Context) error {
	if err := j.File.Settle(ctx, j.values); err != nil {
		return err
	}
	j.settled()
	return nil
}

// State evaluates the references in the file's state alone, and returns the
// directory: a verb that looks at the ledger needs no more of the file.
func (j *Job) State(ctx context.Context) (string, error) {
	if err := j.File.SettleState(ctx, j.values); err != nil {
		return "", err
	}
	j.settled()
	return j.File.State, nil
}

func (j *Job) settled() {
	if !filepath.IsAbs(j.File.State) {
		j.File.State = filepath.Join(j.folder, j.File.State)
	}
	j.base = j.File.State
	j.File.State = j.shard.State(j.base)
	// Beside the ledger, not in it: who may read a ledger may not log in (I9).
	// Of all shards: who logs in needn't know which one an account falls to.
	store := secrets.Store{Dir: filepath.Join(j.base, "secrets")}
	j.values.ReadStore, j.values.WriteStore = store.Read, store.Write
}

// Spool is where the run's bodies wait.
func (j *Job) Spool() *message.Spool { return j.spool }

// OpenLedger opens the ledger that the file names, and locks it.
func (j *Job) OpenLedger(ctx context.Context) (*ledger.Ledger, error) {
	if err := j.CheckShard(); err != nil {
		return nil, err
	}
	l, err := ledger.Open(ctx, j.File.State, j.File.Name)
	if err != nil {
		return nil, err
	}
	j.ledger = l
	return l, nil
}

// ReopenLedger is OpenLedger for a verb that has nothing to say of a pipeline
// that never ran: without a ledger the error is a fault.Config, and none is
// made.
func (j *Job) ReopenLedger(ctx context.Context) (*ledger.Ledger, error) {
	if err := j.CheckShard(); err != nil {
		return nil, err
	}
	view, err := ledger.View(ctx, j.File.State, j.File.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Config, "pipeline %s has never run here: it has no ledger in %s", j.File.Name, j.File.State).
			WithHint("was it run in another folder, or with another `state:`? a ledger that was lost is made anew by: pipeline verify --rebuild")
	}
	if err == nil {
		err = view.Close()
	}
	if err != nil {
		return nil, err
	}
	return j.OpenLedger(ctx)
}

// CheckShard returns an error when the pipeline was divided otherwise before.
// Settle or State comes before it.
func (j *Job) CheckShard() error { return j.shard.Check(j.base, j.File.Name) }

// Shard is the part of the accounts that this job is about.
func (j *Job) Shard() shard.Shard { return j.shard }

// Close ends the plugins' processes and closes the ledger.
func (j *Job) Close(ctx context.Context) error {
	err := j.host.Close(ctx)
	if j.ledger != nil {
		err = errors.Join(err, j.ledger.Close())
	}
	return err
}

// eachSource calls f for each source. An error is that source's alone: it is
// added to the file's BadRows, and the source is taken out.
func (j *Job) eachSource(f func(*config.Source) error) {
	kept := j.File.Sources[:0]
	for i := range j.File.Sources {
		s := &j.File.Sources[i]
		if err := f(s); err != nil {
			j.File.BadRows = append(j.File.BadRows, config.BadRow{At: s.Row, Name: s.Name, Err: err})
			continue
		}
		kept = append(kept, *s)
	}
	j.File.Sources = kept
}

// Prepare evaluates the references, asks each sink where it writes, and makes
// the plan. Check comes before it.
func (j *Job) Prepare(ctx context.Context) error {
	p := &plan.Plan{Name: j.File.Name, Concurrency: j.File.Concurrency.Sources,
		PerHost: j.File.Concurrency.PerHost, ParkAfter: j.File.Concurrency.ParkAfter}
	errs := []error{j.PrepareStages(ctx)}
	p.Chain = j.File.Chain() // what plugins say of themselves is in it now
	j.eachSource(func(s *config.Source) error {
		planned, err := j.planSource(ctx, s)
		if err != nil && s.Row != "" && config.OfRow(err) {
			return err
		}
		errs = append(errs, err)
		p.Sources = append(p.Sources, planned)
		return nil
	})
	errs = append(errs, j.planSinks(ctx, p))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.Settle()
	j.Plan = p
	return errors.Join(j.place(p.Check()), j.checkFenced())
}

// planSinks asks each sink where it writes, and puts it into the plan.
func (j *Job) planSinks(ctx context.Context, p *plan.Plan) error {
	var errs []error
	for i := range j.File.Sinks {
		s, err := j.planSink(ctx, &j.File.Sinks[i])
		errs = append(errs, err)
		p.Sinks = append(p.Sinks, s)
	}
	return errors.Join(errs...)
}

// place puts errors that name a key of the file at its place.
func (j *Job) place(err error) error {
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var out []error
	for _, e := range many.Unwrap() {
		if f := fault.As(e); f != nil && f.Class == fault.Config && f.Key != "" {
			e = j.File.Place(f.Key, e)
		}
		out = append(out, e)
	}
	return errors.Join(out...)
}

func (j *Job) planSource(ctx context.Context, s *config.Source) (plan.Source, error) {
	d, err := j.describe(ctx, pluginhost.Source, s.Plugin)
	if err != nil {
		return plan.Source{}, err
	}
	sc, err := j.schema(ctx, pluginhost.Source, s.Plugin)
	if err != nil {
		return plan.Source{}, err
	}
	// With a command in it, it is evaluated when the source is opened: a plan
	// of 3,000 sources runs no 3,000 commands.
	host := "" // not known without the command
	if !s.Config.Runs(sc) {
		resolved, err := s.Config.ResolveWith(ctx, sc, j.values)
		if err != nil {
			return plan.Source{}, err
		}
		j.sources[s.Name] = j.session(s.Name, s.Plugin, resolved)
		host = hostOf(resolved.JSON)
	}
	rules, err := s.Fingerprint()
	if err != nil {
		return plan.Source{}, err
	}
	var after plan.After
	if a := s.After; a != nil {
		after = plan.After{Action: source.Action{Flag: a.Flag, Move: a.Move, Delete: a.Delete}, OlderThan: a.OlderThan, Rehash: a.Rehash, Batch: a.Batch}
	}
	return plan.Source{
		After: after,
		Name:  s.Name, Plugin: s.Plugin, Row: s.Row, Host: host, Selects: s.Mailboxes.Match, Newest: s.Newest, Limit: int64(s.Limit),
		Vars: s.Vars, Provides: d.Provides, Rules: rules,
	}, nil
}

// hostOf returns what tells the hosts of sources apart, from the keys that
// sources call it by; empty when the config has none of them.
func hostOf(config []byte) string {
	var c struct{ Address, Host, Server, URL, Provider any }
	if json.Unmarshal(config, &c) != nil {
		return "" // a plugin of another shape: no bound
	}
	for _, v := range []any{c.Address, c.Host, c.Server, c.URL, c.Provider} {
		s, ok := v.(string)
		if !ok || s == "" {
			continue
		}
		if u, err := url.Parse(s); err == nil && u.Host != "" {
			s = u.Host
		}
		if host, _, err := net.SplitHostPort(s); err == nil {
			s = host
		}
		return strings.ToLower(s)
	}
	return ""
}

func (j *Job) planSink(ctx context.Context, s *config.Sink) (plan.Sink, error) {
	sc, err := j.schema(ctx, pluginhost.Sink, s.Plugin)
	if err != nil {
		return plan.Sink{}, err
	}
	resolved, err := s.Config.ResolveWith(ctx, sc, j.values)
	if err != nil {
		return plan.Sink{}, err
	}
	session := j.session(s.Name, s.Plugin, resolved)
	j.sinks[s.Name] = session
	prepared, err := j.prepared(ctx, pluginhost.Sink, session, resolved.Fingerprint)
	if err != nil {
		return plan.Sink{}, place(s.Config, err)
	}
	return plan.Sink{Name: s.Name, Plugin: s.Plugin, When: s.When, GoOn: s.Continue, Address: addressOf(resolved.JSON), Prepared: sink.Prepared{
		Target: prepared.Target, Lanes: prepared.Lanes, Needs: prepared.Needs, Record: prepared.Record, Manifest: prepared.Manifest, Fenced: prepared.Fenced,
	}}, nil
}

func (j *Job) session(name, plugin string, r *config.Resolved) pluginhost.SessionSpec {
	s := pluginhost.SessionSpec{Name: name, Plugin: plugin, Config: r.JSON, Spool: j.spool}
	s.Secrets.Value = func(ctx context.Context, ref string) (string, error) {
		secret, ok := r.Secrets[ref]
		if !ok {
			return "", fault.New(fault.Bug, "plugin %s asks for a secret that its config doesn't have: %s", plugin, ref)
		}
		return secret(ctx)
	}
	s.Secrets.Store = func(ctx context.Context, ref, value string) error {
		keep, ok := r.Stores[ref]
		if !ok {
			return fault.New(fault.Config, "%s.%s can't be stored: what stands in the file can't be written to", name, ref).
				WithHint("write it as ${store:%s}, and log in with: pipeline auth login %s", name, name)
		}
		return keep(ctx, value)
	}
	return s
}

// PrepareStages asks those stages that are plugins what they do with their
// configs: all that a verb needs which tries the stages alone.
func (j *Job) PrepareStages(ctx context.Context) error {
	var errs []error
	for i, c := range j.File.Plugins {
		if c != nil {
			errs = append(errs, j.planStage(ctx, j.File.Stages[i], c))
		}
	}
	return errors.Join(errs...)
}

// TryStage opens a session of a stage that PrepareStages prepared.
func (j *Job) TryStage(ctx context.Context, s *stages.Stage) (stage.Stage, error) {
	return j.OpenStage(ctx, s, false)
}

// planStage asks a plugin what it does with the config that it has.
func (j *Job) planStage(ctx context.Context, s *stages.Stage, c *config.PluginConfig) error {
	sc, err := j.schema(ctx, pluginhost.Stage, s.Plugin)
	if err != nil {
		return err
	}
	resolved, err := c.ResolveWith(ctx, sc, j.values)
	if err != nil {
		return err
	}
	session := j.session(s.Name, s.Plugin, resolved)
	j.stages[s.Name] = session
	p, err := j.prepared(ctx, pluginhost.Stage, session, resolved.Fingerprint)
	if err != nil {
		return place(c, err)
	}
	s.Spec = stage.Spec{Needs: p.Needs, Changes: p.Changes, NeedsWhole: p.NeedsWhole}
	s.Identity = resolved.Fingerprint
	return nil
}

func (j *Job) prepared(ctx context.Context, kind pluginhost.Kind, session pluginhost.SessionSpec, fingerprint string) (pluginhost.Prepared, error) {
	key := "prepare "
	if kind == pluginhost.Stage {
		key = "prepare stage "
	}
	return remember(ctx, j, key+session.Plugin+" "+fingerprint, kind, session.Plugin, func() (pluginhost.Prepared, error) {
		return j.host.Prepare(ctx, kind, session)
	})
}

// Sink returns an error unless the file has a sink of that name.
func (j *Job) Sink(name string) error {
	var names []string
	for i := range j.File.Sinks {
		names = append(names, j.File.Sinks[i].Name)
	}
	return named("sink", name, names)
}

// Sources returns the names of the file's sources, in its order; those of rows
// that made no source aren't among them.
func (j *Job) Sources() []string {
	names := make([]string, len(j.File.Sources))
	for i := range names {
		names[i] = j.File.Sources[i].Name
	}
	return names
}

// Source returns an error unless the file has a source of that name.
func (j *Job) Source(name string) error {
	if slices.Contains(j.others, name) {
		return fault.New(fault.Config, "source %s isn't in shard %s", name, j.shard).
			WithHint("it is in --shard %s", shard.Of(name, j.shard.Count))
	}
	return named("source", name, j.Sources())
}

// Only leaves out all sources but those, before Check.
func (j *Job) Only(names []string) error {
	if len(names) == 0 {
		return nil
	}
	for _, name := range names {
		if err := j.Source(name); err != nil {
			return err
		}
	}
	j.File.Sources = slices.DeleteFunc(j.File.Sources, func(s config.Source) bool { return !slices.Contains(names, s.Name) })
	j.File.BadRows = nil
	return nil
}

func named(what, name string, names []string) error {
	if slices.Contains(names, name) {
		return nil
	}
	err := fault.New(fault.Config, "the file has no %s %q", what, name)
	if near := spec.Nearest(name, names); near != "" {
		return err.WithHint("did you mean %q?", near)
	}
	const most = 8
	if more := len(names) - most; more > 0 {
		names = append(names[:most:most], fmt.Sprintf("and %d more", more))
	}
	return err.WithHint("it has: %s", strings.Join(names, ", "))
}

// BadRows returns the rows of tables that make no source, as accounts that
// failed before they began.
func (j *Job) BadRows() []engine.Account {
	var out []engine.Account
	for _, r := range j.File.BadRows {
		name := r.Name
		if name == "" {
			name = r.At
		}
		out = append(out, engine.Account{Source: name, Err: r.Err})
	}
	return out
}

// PlainSecrets returns a warning for each secret that stands in the file
// itself. Check comes before it.
func (j *Job) PlainSecrets(ctx context.Context) (config.Problems, error) {
	var out config.Problems
	seen := map[*config.PluginConfig]bool{}
	look := func(kind pluginhost.Kind, plugin string, c *config.PluginConfig) error {
		if seen[c] {
			return nil
		}
		seen[c] = true
		sc, err := j.schema(ctx, kind, plugin)
		if err == nil {
			out = append(out, c.PlainSecrets(sc)...)
		}
		return err
	}
	for i := range j.File.Sources {
		if err := look(pluginhost.Source, j.File.Sources[i].Plugin, j.File.Sources[i].Config.Pattern()); err != nil {
			return nil, err
		}
	}
	for i := range j.File.Sinks {
		if err := look(pluginhost.Sink, j.File.Sinks[i].Plugin, j.File.Sinks[i].Config); err != nil {
			return nil, err
		}
	}
	return out, nil
}
