package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/lockfile"
	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

func (c *command) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Find, pin, write and test plugins",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.pluginListCommand(), c.pluginInfoCommand(), c.pluginPinCommand(), c.pluginNewCommand(), c.pluginTestCommand())
	return cmd
}

// withHost runs f with a host that finds plugins as a run does.
func (c *command) withHost(ctx context.Context, f func(*pluginhost.Host) error) (err error) {
	o := pluginhost.FromEnvironment(c.plugins)
	o.Log = c.logger()
	h, err := pluginhost.New(o)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
		defer cancel()
		err = errors.Join(err, h.Close(ctx))
	}()
	return f(h)
}

// listed is a plugin as `plugin list` tells it.
type listed struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
	Protocol int    `json:"protocol,omitempty"`
	Summary  string `json:"summary,omitempty"`
	Path     string `json:"path"`
	Found    string `json:"found"`
	SHA256   string `json:"sha256"`
	Lock     string `json:"lock,omitempty"`  // pinned, differs or missing; empty without a lock
	Error    string `json:"error,omitempty"` // why it can't be started
}

func (c *command) pluginListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the plugins that are found, where, and which builds they are",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withHost(cmd.Context(), func(h *pluginhost.Host) error {
				all, err := c.listed(cmd.Context(), h)
				if err != nil {
					return err
				}
				if asJSON {
					e := json.NewEncoder(c.out)
					e.SetIndent("", "  ")
					return e.Encode(all)
				}
				return printListed(c.out, all)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *command) listed(ctx context.Context, h *pluginhost.Host) ([]listed, error) {
	pins, err := lockfile.Read(filepath.Dir(c.file))
	if err != nil {
		return nil, err
	}
	all := []listed{}
	for _, f := range h.All() {
		l := listed{Kind: f.Kind.String(), Name: f.Name, Path: f.Path, Found: f.Why}
		if l.SHA256, err = pluginhost.Checksum(f.Path); err != nil {
			return nil, err
		}
		if pins != nil {
			l.Lock = "missing"
		}
		for _, p := range pins {
			if p.Kind != l.Kind || p.Name != l.Name {
				continue
			}
			if l.Lock = "pinned"; p.SHA256 != l.SHA256 {
				l.Lock = "differs"
			}
		}
		if l.Lock == "differs" {
			l.Error = "not started: it isn't the build that " + lockfile.Name + " names"
		} else if d, err := h.Describe(ctx, f.Kind, f.Name); err != nil {
			l.Error = err.Error()
		} else {
			l.Version, l.Summary, l.Protocol = d.Version, d.Summary, d.Protocol
		}
		all = append(all, l)
	}
	return all, nil
}

func printListed(w io.Writer, all []listed) error {
	if len(all) == 0 {
		fmt.Fprintln(w, "no plugins found beside pipeline, in --plugin-dir, PIPELINE_PLUGIN_PATH or PATH")
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tNAME\tVERSION\tPROTOCOL\tSHA256\tLOCK\tPATH")
	for _, l := range all {
		version, protocol := l.Version, fmt.Sprint(l.Protocol)
		if l.Error != "" {
			version, protocol = "?", "?"
		}
		lock := l.Lock
		if lock == "" {
			lock = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.12s\t%s\t%s (%s)\n", l.Kind, l.Name, version, protocol, l.SHA256, lock, l.Path, l.Found)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range all {
		if l.Error != "" {
			fmt.Fprintf(w, "\n%s %s: %s\n", l.Kind, l.Name, l.Error)
		}
	}
	return nil
}

func (c *command) pluginInfoCommand() *cobra.Command {
	var kind string
	var schema bool
	cmd := &cobra.Command{
		Use:   "info NAME",
		Short: "Show what a plugin is, and the keys of its config",
		Example: `  pipeline plugin info eml
  pipeline plugin info --kind source imap
  pipeline plugin info --schema eml        # the JSON Schema of its config`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withHost(cmd.Context(), func(h *pluginhost.Host) error {
				return c.info(cmd.Context(), h, kind, args[0], schema)
			})
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "", "source, sink or stage, where a name is of several")
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of its config, and nothing else")
	return cmd
}

func (c *command) info(ctx context.Context, h *pluginhost.Host, kind, name string, schema bool) error {
	if k, n, ok := pluginhost.Parse(name); ok { // as its executable is called
		kind, name = k.String(), n
	}
	var found []pluginhost.Found
	for _, k := range []pluginhost.Kind{pluginhost.Source, pluginhost.Sink, pluginhost.Stage} {
		if kind != "" && kind != k.String() {
			continue
		}
		if f, err := h.Find(k, name); err == nil {
			found = append(found, f)
		} else if kind != "" {
			return err
		}
	}
	switch {
	case len(found) > 1:
		return fault.New(fault.Config, "there is a %s %s and a %s %s", found[0].Kind, name, found[1].Kind, name).WithHint("say which with --kind")
	case len(found) == 0 && kind != "":
		return fault.New(fault.Config, "there is no kind of plugin %q", kind).WithHint("use source, sink or stage")
	case len(found) == 0:
		var names []string
		for _, f := range h.All() {
			names = append(names, f.Name)
		}
		return fault.New(fault.Config, "there is no plugin %q%s", name, spec.DidYouMean(name, names)).
			WithHint("pipeline plugin list shows those that are there")
	}
	f := found[0]
	d, err := h.Describe(ctx, f.Kind, f.Name)
	if err != nil {
		return err
	}
	if schema {
		fmt.Fprintln(c.out, string(d.Schema))
		return nil
	}
	keys, err := spec.Markdown(d.Schema)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s %s %s: %s\n\nfound     %s (%s)\nprotocol  %d\n", d.Kind, d.Name, d.Version, d.Summary, f.Path, f.Why, d.Protocol)
	if d.Kind == pluginhost.Source {
		fmt.Fprintf(c.out, "provides  %s\n", d.Provides)
	}
	fmt.Fprintf(c.out, "\n%s", keys)
	return nil
}

func (c *command) pluginPinCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pin",
		Short: "Write pipeline.lock: from now on only these builds of the file's plugins are started",
		Long: `Write pipeline.lock beside the pipeline file: the name, version and sha256 of
each plugin that the file names. From then on a plugin that differs, or isn't in
the lock, is refused before it is started. Without the lock any build is taken.

Put the lock under version control. After an upgrade of a plugin, pin again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := config.Load(c.file)
			if err != nil {
				return err
			}
			return c.withHost(cmd.Context(), func(h *pluginhost.Host) error { return c.pin(cmd.Context(), h, f) })
		},
	}
}

func (c *command) pin(ctx context.Context, h *pluginhost.Host, f *config.File) error {
	folder := filepath.Dir(c.file)
	old, err := lockfile.Read(folder)
	if err != nil {
		old = nil // it is written anew
	}
	before := map[string]lockfile.Pin{}
	for _, p := range old {
		before[p.Executable()] = p
	}
	var pins []lockfile.Pin
	seen := map[string]bool{}
	add := func(kind pluginhost.Kind, name string) error {
		p := lockfile.Pin{Kind: kind.String(), Name: name}
		if name == "" || seen[p.Executable()] {
			return nil
		}
		seen[p.Executable()] = true
		found, err := h.Find(kind, name)
		if err != nil {
			return err
		}
		d, err := h.Describe(ctx, kind, name)
		if err != nil {
			return err
		}
		p.Version = d.Version
		p.SHA256, err = pluginhost.Checksum(found.Path)
		pins = append(pins, p)
		return err
	}
	var errs []error
	for _, s := range f.Sources {
		errs = append(errs, add(pluginhost.Source, s.Plugin))
	}
	for _, s := range f.Stages {
		errs = append(errs, add(pluginhost.Stage, s.Plugin))
	}
	for _, s := range f.Sinks {
		errs = append(errs, add(pluginhost.Sink, s.Plugin))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if store, err := h.Find(pluginhost.Store, pluginhost.StoreName); err == nil {
		// Whether a path is a bucket's address may hang on a variable.
		p := lockfile.Pin{Kind: store.Kind.String(), Name: store.Name}
		if p.SHA256, err = pluginhost.Checksum(store.Path); err != nil {
			return err
		}
		pins = append(pins, p)
	}
	if err := lockfile.Write(folder, pins); err != nil {
		return err
	}
	for _, p := range pins {
		what := "as before"
		switch b, ok := before[p.Executable()]; {
		case !ok:
			what = "new"
		case b.SHA256 != p.SHA256:
			what = strings.TrimSpace("changed, was " + b.Version)
		}
		fmt.Fprintf(c.out, "%s %s  sha256 %.12s…  (%s)\n", p.Kind, strings.TrimSpace(p.Name+" "+p.Version), p.SHA256, what)
	}
	fmt.Fprintf(c.out, "pinned in %s\n", filepath.Join(folder, lockfile.Name))
	return nil
}
