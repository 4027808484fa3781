// Command pipeline-sink-attachments writes each attachment of a message as a
// file. The pipeline starts it; it isn't meant to be run by hand.
package main

import (
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-attachments/internal/files"
)

func main() { sink.Serve(plugin()) }

func plugin() sink.Plugin[files.Config] {
	return sink.Plugin[files.Config]{
		Name: "attachments", Version: "1.0.0",
		Summary: "a folder for each message that has attachments, with a file for each of them",
		Prepare: files.Prepare, Open: files.Open,
	}
}
