// Package files is a sink that writes the attachments of messages: a folder
// for each message that has any, in it a file for each, decoded.
package files

import (
	"github.com/mailhaul/pipeline/pkg/attachment"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// Config is the sink's config.
type Config struct {
	Path    string            `json:"path" required:"true" doc:"directory that the files are written to; made when missing; or the address of a place in a bucket, as s3://bucket/mail" example:"export/attachments"`
	Name    string            `json:"name" default:"{source}/{mailbox}/{date}-{uid}-{subject}-{hash}" doc:"template of the name of a message's folder: fields are source, mailbox, uid, uidl, hash, date, year, month, day, internal_date, subject, from, message_id, vars.NAME; the hash of the id is put at its end where it is left out"`
	MaxPath int               `json:"max_path" default:"240" min:"160" max:"32000" doc:"most UTF-16 units of a file's name with its folder, the path above not counted: longer ones are cut, never in the hash or the ending"`
	Only    attachment.Filter `json:"only" doc:"which attachments are written; all that aren't shown within the text when left out"`
}

// fileMost is how many UTF-16 units of a path a file may have in its folder.
const fileMost = 80

// lanes is how many messages are written at once, see sink-eml.
const lanes = 8

func (c Config) template(fence uint64) (*naming.Template, error) {
	return naming.Parse(c.Name, naming.Options{MaxPath: c.MaxPath - fileMost - 1, Fence: fence})
}

// Prepare says where the sink writes and what it reads of a message. A
// relative path is one of the working directory.
func Prepare(c Config) (sink.Prepared, error) {
	path, err := target.Absolute(c.Path)
	if err != nil {
		return sink.Prepared{}, err
	}
	t, err := c.template(0)
	if err != nil {
		return sink.Prepared{}, err
	}
	return sink.Prepared{
		Target: path, Lanes: lanes, Manifest: true, Fenced: target.IsAddress(c.Path),
		Needs: message.NeedBody | message.NeedHeaders | message.NeedInternalDate | t.Needs(),
	}, nil
}
