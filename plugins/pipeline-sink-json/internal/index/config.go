// Package index is a sink that keeps the books: one JSON object a line for
// each message, and what became of it.
package index

import (
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// Config is the sink's config.
type Config struct {
	Path   string `json:"path" required:"true" doc:"file that the lines are written to; its directory is made when missing; or the address of an object, as s3://bucket/index.jsonl" example:"export/index.jsonl"`
	Detail string `json:"detail" enum:"headers,structure" default:"headers" doc:"how much is told of a message: headers leaves attachments out; structure has them, which costs a listing of each message's parts where no body is fetched"`
}

// Prepare says where the sink writes and what it reads of a message. A
// relative path is one of the working directory.
func Prepare(c Config) (sink.Prepared, error) {
	path, err := target.Absolute(c.Path)
	if err != nil {
		return sink.Prepared{}, err
	}
	needs := message.NeedSize | message.NeedInternalDate | message.NeedFlags | message.NeedGmail | message.NeedHeaders
	if c.Detail == "structure" {
		needs |= message.NeedStructure
	}
	// One lane: the lines stand in the order in which fates became final.
	return sink.Prepared{Target: path, Lanes: 1, Needs: needs, Record: true, Fenced: target.IsAddress(c.Path)}, nil
}
