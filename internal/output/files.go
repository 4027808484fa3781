// Package output reads what sinks have left, whether that is in a folder or in
// a bucket: markers, manifests and files. It changes nothing.
package output

import (
	"context"
	"io"
	"iter"

	"github.com/mailhaul/pipeline/pkg/target"
)

// Files is the target of a sink of files that keeps a manifest of package
// target. All methods are safe for concurrent use; but for Lines, which one
// goroutine uses at a time and which Row and Whole go by. What isn't there is an
// fs.ErrNotExist. Other errors are of a class of package fault.
type Files interface {
	// Present reports whether there is anything of the target at all.
	Present(ctx context.Context) (bool, error)

	// Marked returns the id of the pipeline and the name of the sink that the
	// marker names; both are empty where there is no marker.
	Marked(ctx context.Context) (pipeline, sink string, err error)

	// Knows reports whether a checkpoint is one of a sink of such a target.
	Knows(checkpoint []byte) bool

	// Lines returns the lines of the manifest, in their order. checkpoint is
	// the one that the ledger has; nil: the target is asked itself, and all
	// that it has counts. The error ends the sequence.
	Lines(ctx context.Context, checkpoint []byte) iter.Seq2[Line, error]

	// Whole returns the checkpoint that vouches for the lines that Lines has
	// read, but for those of a piece that is cut short, which Lines tells as one
	// line that can't be read: for who makes a ledger anew.
	Whole() ([]byte, error)

	// Row returns the row that stands at the offset of a line of Lines.
	Row(ctx context.Context, offset int64) (target.Row, error)

	// Manifest names where the manifest stands, for people.
	Manifest() string

	// Rest returns what else is wrong with the books, as the ledger's
	// checkpoint has them, in words.
	Rest(ctx context.Context, checkpoint []byte) ([]Flaw, error)

	// All returns the files that are there, but for the sinks' books. The error
	// ends the sequence.
	All(ctx context.Context) iter.Seq2[File, error]

	// Open returns the octets of a file, and how many they are.
	Open(ctx context.Context, name string) (octets io.ReadCloser, size int64, err error)

	// Path returns the name of a file as people and other programs know it.
	Path(name string) string

	// AtOnce is how many files should be read at once.
	AtOnce() int

	Close()
}

// Line is a line of a manifest.
type Line struct {
	target.ManifestLine
	Behind bool // all that was ever committed
}

// File is a file in a listing.
type File struct {
	Name string // within the target, "/" between levels
	Size int64  // octets; -1: the listing doesn't tell
}

// Flaw is something that is wrong with the books of a target.
type Flaw struct {
	Missing bool   // it isn't there, and should be; else it is there, and shouldn't
	Name    string // within the target
	Text    string // what is wrong, in words
	Part    bool   // it is a part of a list; else the list of them
	Upload  bool   // it is the upload of a file, and nothing of the books
}

// Open returns the files of a target: in a bucket where an address is given,
// else in the folder of that path. store returns the socket of the store of
// objects. Errors are those of target.Look.
func Open(ctx context.Context, path, address string, store func() (string, error)) (Files, error) {
	if address == "" {
		return &folder{root: path}, nil
	}
	socket, err := store()
	if err != nil {
		return nil, err
	}
	p, err := target.Look(ctx, address, false, socket)
	if err != nil {
		return nil, err
	}
	return &bucket{place: p}, nil
}
