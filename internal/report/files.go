package report

import (
	"bytes"
	"encoding/json"
	"io"
	"path/filepath"

	"github.com/mailhaul/pipeline/pkg/target"
)

// Files are the paths that reports are written to; an empty one isn't.
type Files struct {
	JSON string
	HTML string
	CSV  string
}

// Any reports whether some file is to be written.
func (f Files) Any() bool { return f.JSON != "" || f.HTML != "" || f.CSV != "" }

// Write writes the files, each whole or not at all, over those of the run
// before. The error is of class Config or Full.
func Write(f Files, r *Report) error {
	for _, form := range []struct {
		path  string
		write func(io.Writer, *Report) error
	}{{f.JSON, JSON}, {f.HTML, HTML}, {f.CSV, CSV}} {
		if form.path == "" {
			continue
		}
		var b bytes.Buffer
		if err := form.write(&b, r); err != nil {
			return err
		}
		if err := target.MakeDirs(filepath.Dir(form.path)); err != nil {
			return err
		}
		if err := target.WriteFile(form.path, b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// JSON writes the report as docs/reference/report.schema.json has it.
func JSON(w io.Writer, r *Report) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
