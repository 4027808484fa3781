package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/plugintest"
)

func (c *command) pluginTestCommand() *cobra.Command {
	var f plugintest.Fixture
	var with string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test EXECUTABLE",
		Short: "Hold a plugin, in whatever language, against the conformance suite",
		Long: `Hold a plugin, in whatever language, against the conformance suite.

--with names a YAML file with the plugin's own config. In it {dir} stands for a
fresh directory of each case. A source's config leads to a server with at least
three messages in a mailbox; nothing is changed there. Without --with a path is
below {dir}, and the other keys have their defaults.

Exit codes: 0 all cases passed; 1 some didn't; 2 the plugin couldn't be tested.`,
		Example: `  pipeline plugin test bin/pipeline-sink-archive
  pipeline plugin test bin/pipeline-source-jmap --with jmap.yaml --patience 3m
  pipeline plugin test bin/pipeline-sink-archive --case writes --case cancels-writes`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := readConfig(with, &f); err != nil {
				return err
			}
			return c.conformance(cmd.Context(), args[0], f, asJSON)
		},
	}
	cmd.Flags().StringVar(&with, "with", "", "YAML file with the plugin's config")
	cmd.Flags().StringArrayVar(&f.Cases, "case", nil, "run this case only; may be given more than once")
	cmd.Flags().DurationVar(&f.Patience, "patience", 2*time.Second, "how long the other side is slow where that is tested")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a case")
	return cmd
}

func readConfig(path string, f *plugintest.Fixture) error {
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fault.New(fault.Config, "read the plugin's config: %w", err)
	}
	f.Config = map[string]any{}
	if err := yaml.Unmarshal(b, &f.Config); err != nil {
		return fault.New(fault.Config, "read the plugin's config %s: %w", path, err).
			WithHint("it has the plugin's own keys at the top, as below config: in the pipeline file")
	}
	return nil
}

func (c *command) conformance(ctx context.Context, path string, f plugintest.Fixture, asJSON bool) error {
	passed, failed, left := 0, 0, 0
	err := plugintest.Executable(ctx, path, f, func(r plugintest.Result) {
		switch {
		case !r.Passed():
			failed++
		case r.NotTried != "":
			left++
		default:
			passed++
		}
		if asJSON {
			c.resultJSON(r)
			return
		}
		c.resultText(r)
	})
	if err != nil {
		if fault.As(err) == nil && f.Config == nil {
			err = fault.New(fault.Config, "%w", err).WithHint("write its config into a file, as it stands below config: in the pipeline file, and name that with --with FILE")
		}
		return fault.Wrap(fault.Config, err, "test %s", filepath.Base(path))
	}
	if !asJSON {
		fmt.Fprintf(c.out, "\n%s: %d passed, %d failed, %d not tried\n", filepath.Base(path), passed, failed, left)
	}
	if failed > 0 {
		return exit(engine.ExitStopped)
	}
	return nil
}

func (c *command) resultText(r plugintest.Result) {
	word := "ok  "
	switch {
	case !r.Passed():
		word = "FAIL"
	case r.NotTried != "":
		word = "-   "
	}
	fmt.Fprintf(c.out, "%s  %-26s %6.1fs", word, r.Case, r.Took.Seconds())
	if r.NotTried != "" {
		fmt.Fprintf(c.out, "  not tried: %s", r.NotTried)
	}
	fmt.Fprintln(c.out)
	if r.Passed() {
		return
	}
	fmt.Fprintf(c.out, "      the promise: %s\n", r.Promise)
	for _, p := range r.Problems {
		fmt.Fprintf(c.out, "      - %s\n", p)
	}
}

func (c *command) resultJSON(r plugintest.Result) {
	b, err := json.Marshal(struct {
		Case     string   `json:"case"`
		Promise  string   `json:"promise"`
		Passed   bool     `json:"passed"`
		NotTried string   `json:"not_tried,omitempty"`
		Problems []string `json:"problems,omitempty"`
		Seconds  float64  `json:"seconds"`
	}{r.Case, r.Promise, r.Passed(), r.NotTried, r.Problems, r.Took.Seconds()})
	if err == nil {
		fmt.Fprintln(c.out, string(b))
	}
}
