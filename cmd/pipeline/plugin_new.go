package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/scaffold"
	"github.com/mailhaul/pipeline/pkg/fault"
)

func (c *command) pluginNewCommand() *cobra.Command {
	var p scaffold.Plugin
	var dir string
	cmd := &cobra.Command{
		Use:   "new source|sink|stage NAME",
		Short: "Write the module of a new plugin: it builds, and passes its test",
		Example: `  pipeline plugin new sink archive
  cd pipeline-sink-archive && make`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			p.Kind, p.Name = args[0], args[1]
			if dir == "" {
				dir = p.Executable()
			}
			return c.scaffold(dir, p)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the folder to write to; default: the executable's name")
	cmd.Flags().StringVar(&p.Path, "module", "", "path of the Go module; default: example.com/pipeline-KIND-NAME")
	cmd.Flags().StringVar(&p.Replace, "replace", "", "folder of a checkout of "+scaffold.Module+" to build with; default: found from where pipeline is")
	return cmd
}

func (c *command) scaffold(dir string, p scaffold.Plugin) error {
	p.Version = version()
	if !strings.HasPrefix(p.Version, "v") || strings.Contains(p.Version, "+") {
		p.Version = "v0.0.0" // built from a checkout
	}
	if p.Replace == "" && (p.Version == "v0.0.0" || strings.HasPrefix(p.Version, "v0.0.0-")) {
		self, err := os.Executable()
		if err != nil {
			self = "."
		}
		p.Version, p.Replace = "v0.0.0", scaffold.Checkout(filepath.Dir(self), ".")
		if p.Replace == "" {
			return fault.New(fault.Config, "the module %s isn't published, and no checkout of it is here", scaffold.Module).
				WithHint("say where one is: pipeline plugin new %s %s --replace DIR", p.Kind, p.Name)
		}
	}
	if p.Replace != "" {
		abs, err := filepath.Abs(p.Replace)
		if err != nil {
			return fault.New(fault.Config, "find --replace %s: %w", p.Replace, err)
		}
		if scaffold.Checkout(abs) != abs {
			return fault.New(fault.Config, "--replace %s: it isn't a checkout of %s", p.Replace, scaffold.Module)
		}
		p.Replace = abs
	}
	files, err := scaffold.Write(dir, p)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "wrote %s in %s\n", strings.Join(files, ", "), dir)
	tidy := exec.Command("go", "mod", "tidy") //nolint:noctx // it ends, or the user ends it
	tidy.Dir = dir
	if out, err := tidy.CombinedOutput(); err != nil {
		fmt.Fprintf(c.err, "go mod tidy: %v\n%s", err, out)
		fmt.Fprintf(c.out, "next: cd %s, go mod tidy, make\n", dir)
		return nil
	}
	fmt.Fprintf(c.out, "next: cd %s && make\n", dir)
	return nil
}
