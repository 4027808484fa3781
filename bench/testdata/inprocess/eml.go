// Package linked shows the EML sink to the program that TestTax builds.
package linked

import (
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-eml/internal/eml"
)

// Plugin returns the sink as its main program has it.
func Plugin() sink.Plugin[eml.Config] {
	return sink.Plugin[eml.Config]{Name: "eml", Prepare: eml.Prepare, Open: eml.Open}
}
