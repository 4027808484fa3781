package main

import (
	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/config"
)

// completion returns what may follow on the command line.
type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completes offers names from the pipeline file; none when it can't be read.
func (c *command) completes(names func(*config.File) []string) completion {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		f, err := config.Load(c.file)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(f), cobra.ShellCompDirectiveNoFileComp
	}
}

func sourceNames(f *config.File) []string {
	var out []string
	for i := range f.Sources {
		out = append(out, f.Sources[i].Name)
	}
	return out
}

func sinkNames(f *config.File) []string {
	var out []string
	for i := range f.Sinks {
		out = append(out, f.Sinks[i].Name)
	}
	return out
}

// completeFlag offers names for a flag of a command.
func (c *command) completeFlag(cmd *cobra.Command, flag string, names func(*config.File) []string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, c.completes(names)); err != nil {
		panic(err) // the command has no such flag
	}
}
