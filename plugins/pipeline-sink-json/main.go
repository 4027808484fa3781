// Command pipeline-sink-json writes an index of the messages, one JSON object
// a line. The pipeline starts it; it isn't meant to be run by hand.
package main

import (
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-json/internal/index"
)

func main() { sink.Serve(plugin()) }

func plugin() sink.Plugin[index.Config] {
	return sink.Plugin[index.Config]{
		Name: "json", Version: "1.0.0",
		Summary: "an index of the messages in JSON Lines, one message a line",
		Prepare: index.Prepare, Open: index.Open,
	}
}
