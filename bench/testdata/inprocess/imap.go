// Package linked shows the IMAP source to the program that TestTax builds.
package linked

import (
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapsource"
)

// Plugin returns the source as its main program has it.
func Plugin() source.Plugin[imapsource.Config] {
	return source.Plugin[imapsource.Config]{Name: "imap", Provides: imapsource.Provides, Open: imapsource.Opener(mailnet.NewTokens())}
}
