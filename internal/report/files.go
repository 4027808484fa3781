package report

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/target"
)

// Files are the paths that reports are written to, or the addresses of objects
// in buckets; an empty one isn't.
type Files struct {
	JSON string
	HTML string
	CSV  string

	// Store returns the socket of the store of objects. It is called only where
	// one of them is an address.
	Store func() (string, error)
}

// Any reports whether some file is to be written.
func (f Files) Any() bool { return f.JSON != "" || f.HTML != "" || f.CSV != "" }

// Write writes the files, each whole or not at all, over those of the run
// before. The error is of class Config or Full, or what a bucket answered with.
func Write(ctx context.Context, f Files, r *Report) error {
	for _, form := range []struct {
		path, kind string
		write      func(io.Writer, *Report) error
	}{{f.JSON, "application/json", JSON}, {f.HTML, "text/html; charset=utf-8", HTML}, {f.CSV, "text/csv; charset=utf-8", CSV}} {
		if form.path == "" {
			continue
		}
		var b bytes.Buffer
		if err := form.write(&b, r); err != nil {
			return err
		}
		if objects.IsAddress(form.path) {
			if err := f.put(ctx, form.path, form.kind, b.Bytes()); err != nil {
				return err
			}
			continue
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

// put stores a report as an object.
func (f Files) put(ctx context.Context, address, kind string, octets []byte) error {
	b, name, err := f.bucket(address)
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Put(ctx, name, bytes.NewReader(octets), int64(len(octets)), objects.PutOptions{ContentType: kind})
}

// Check looks into the buckets that reports are to be written to: a wrong one is
// worth knowing before hours of work. It writes nothing.
func (f Files) Check(ctx context.Context) error {
	for _, path := range []string{f.JSON, f.HTML, f.CSV} {
		if !objects.IsAddress(path) {
			continue
		}
		b, _, err := f.bucket(path)
		if err != nil {
			return err
		}
		if b.Patience > 30*time.Second {
			b.Patience = 30 * time.Second // as long as sinks wait when they are opened
		}
		err = b.Check(ctx)
		b.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket returns the place that holds the object at an address, and its name.
func (f Files) bucket(address string) (*objects.Bucket, string, error) {
	l, err := objects.Parse(address)
	if err != nil {
		return nil, "", err
	}
	if f.Store == nil {
		return nil, "", fault.New(fault.Config, "%s: a report is put into a bucket by the run that it is of", l.Target).
			WithHint("write it to a file, and copy that")
	}
	at, name := l.Up()
	socket, err := f.Store()
	if err != nil {
		return nil, "", err
	}
	b, err := objects.Dial(socket, at)
	return b, name, err
}

// JSON writes the report as docs/reference/report.schema.json has it.
func JSON(w io.Writer, r *Report) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
