// Command pipeline-source-pop3 is the POP3 source.
package main

import (
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-pop3/internal/popsource"
)

func main() { source.Serve(plugin()) }

func plugin() source.Plugin[popsource.Config] {
	return source.Plugin[popsource.Config]{
		Name: "pop3", Version: "0.1.0", Summary: "Mail from a POP3 server, read only",
		Provides: popsource.Provides, Open: popsource.Opener(mailnet.NewTokens()),
	}
}
