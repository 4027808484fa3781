// Command pipeline-sink-msg writes each message as an Outlook .msg file. The
// pipeline starts it; it isn't meant to be run by hand.
package main

import (
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msg"
)

func main() { sink.Serve(plugin()) }

func plugin() sink.Plugin[msg.Config] {
	return sink.Plugin[msg.Config]{
		Name: "msg", Version: "1.0.0",
		Summary: "a directory of Outlook .msg files",
		Prepare: msg.Prepare, Open: msg.Open,
	}
}
