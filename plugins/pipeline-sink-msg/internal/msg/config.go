// Package msg is a sink that writes each message as an Outlook .msg file of its
// own.
package msg

import (
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
)

// Config is the sink's config.
type Config struct {
	Path     string `json:"path" required:"true" doc:"directory that the files are written to; made when missing; or the address of a place in a bucket, as s3://bucket/mail" example:"export/msg"`
	Name     string `json:"name" default:"{source}/{mailbox}/{date}-{uid}-{subject}-{hash}.msg" doc:"template of a file's name: fields are source, mailbox, uid, uidl, hash, date, year, month, day, internal_date, subject, from, message_id, vars.NAME; the hash of the id is put before the extension where it is left out"`
	MaxPath  int    `json:"max_path" default:"240" min:"64" max:"32000" doc:"most UTF-16 units of a file's name, the path above not counted: longer ones are cut, never in the hash"`
	RTF      bool   `json:"rtf" default:"false" doc:"also store HTML encapsulated in RTF, for programs that read no HTML from a .msg"`
	Codepage string `json:"codepage" default:"original" enum:"original,utf-8" doc:"how HTML is stored: in its own octets where readers know their code page, or always as UTF-8"`
}

// extension is what every file's name ends in.
const extension = ".msg"

// lanes is how many messages are converted at once: enough for the cores of a
// small machine and a slow disk beside them, few enough for the memory that
// the largest texts take (I5).
const lanes = 4

func (c Config) template(fence uint64) (*naming.Template, error) {
	return naming.Parse(c.Name, naming.Options{Extension: extension, MaxPath: c.MaxPath, Fence: fence})
}

func (c Config) options() (convert.Options, error) {
	o := convert.Options{RTF: c.RTF}
	switch c.Codepage {
	case "", "original":
	case "utf-8":
		o.UTF8 = true
	default:
		return o, fault.New(fault.Config, "codepage is %q (expected original or utf-8)", c.Codepage).WithKey("codepage")
	}
	return o, nil
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
	if _, err := c.options(); err != nil {
		return sink.Prepared{}, err
	}
	return sink.Prepared{
		Target: path, Lanes: lanes, Manifest: true, Fenced: target.IsAddress(c.Path),
		Needs: message.NeedBody | message.NeedInternalDate | message.NeedFlags | t.Needs(),
	}, nil
}
