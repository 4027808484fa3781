// Command pipeline-source-imap is the IMAP source.
package main

import (
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapsource"
)

func main() { source.Serve(plugin()) }

func plugin() source.Plugin[imapsource.Config] {
	return source.Plugin[imapsource.Config]{
		Name: "imap", Version: "0.1.0", Summary: "Mail from an IMAP server, read only",
		Provides: imapsource.Provides, Open: imapsource.Opener(mailnet.NewTokens()),
	}
}
