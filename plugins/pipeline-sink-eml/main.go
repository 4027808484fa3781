// Command pipeline-sink-eml writes each message as an .eml file, byte for byte
// what the server sent. The pipeline starts it; it isn't meant to be run by
// hand.
package main

import (
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-eml/internal/eml"
)

func main() { sink.Serve(plugin()) }

func plugin() sink.Plugin[eml.Config] {
	return sink.Plugin[eml.Config]{
		Name: "eml", Version: "1.0.0",
		Summary: "a directory of .eml files, byte for byte what the server sent",
		Prepare: eml.Prepare, Open: eml.Open,
	}
}
