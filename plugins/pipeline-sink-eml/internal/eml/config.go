// Package eml is a sink that writes each message as a file of its own, byte
// for byte what the server sent (I4).
package eml

import (
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// Config is the sink's config.
type Config struct {
	Path    string `json:"path" required:"true" doc:"directory that the files are written to; made when missing; or the address of a place in a bucket, as s3://bucket/mail" example:"export/eml"`
	Name    string `json:"name" default:"{source}/{mailbox}/{date}-{uid}-{subject}-{hash}.eml" doc:"template of a file's name: fields are source, mailbox, uid, uidl, hash, date, year, month, day, internal_date, subject, from, message_id, vars.NAME; the hash of the id is put before the extension where it is left out"`
	MaxPath int    `json:"max_path" default:"240" min:"64" max:"32000" doc:"most UTF-16 units of a file's name, the path above not counted: longer ones are cut, never in the hash"`
}

// extension is what every file's name ends in.
const extension = ".eml"

// lanes is how many files are written at once. What takes time is the
// kernel's work for each file, so more than the cores gain nothing; a few more
// keep a slow disk busy.
const lanes = 8

func (c Config) template(fence uint64) (*naming.Template, error) {
	return naming.Parse(c.Name, naming.Options{Extension: extension, MaxPath: c.MaxPath, Fence: fence})
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
		Needs: message.NeedBody | message.NeedInternalDate | t.Needs(),
	}, nil
}
