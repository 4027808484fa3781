package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/demo"
)

func (c *command) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Run the pipeline file against an embedded IMAP server with a sample mailbox",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server, err := demo.Start(cmd.Context())
			if err != nil {
				return err
			}
			defer server.Close()
			set := map[string]string{}
			for _, variable := range server.Environ() {
				name, value, _ := strings.Cut(variable, "=")
				set[name] = value
			}
			c.values.LookupEnv = func(name string) (string, bool) {
				if value, ok := set[name]; ok {
					return value, true
				}
				return os.LookupEnv(name)
			}
			fmt.Fprintf(c.out, "A sample mailbox is served on %s; running %s against it.\n\n", server.Addr(), c.file)
			if err := c.run(cmd.Context(), runFlags{}); err != nil {
				return err
			}
			fmt.Fprint(c.out, `
Look at it:
  find export/eml -name '*.eml'         # each mail, byte for byte as the server has it
  head -n 2 export/index.jsonl          # what each mail is, a JSON line each
Run it again: nothing is fetched twice. Then set three variables (see pipeline.yaml)
and "make clean", and run it against your own server: bin/pipeline run
`)
			return nil
		},
	}
}
