package output

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

// Index is an index in a bucket, to be read: an object, and beside it in the
// books the parts with lines that aren't merged into it yet
// (docs/reference/object-storage.md).
type Index struct {
	place  *target.Place
	name   string // of the object
	target string // for people
}

// IndexPoint is a state of an index, as its sink's checkpoint has it.
type IndexPoint struct {
	Generation int64         `json:"generation"`
	Length     int64         `json:"length"` // octets of the object
	Lines      []target.Part `json:"lines"`
	Pending    []target.Part `json:"pending"` // whose lines replace others
}

// indexCheckpoint is the token of an index in a bucket, and what its list of
// parts holds.
type indexCheckpoint struct {
	Version int         `json:"v"`
	Object  *IndexPoint `json:"object"`
}

// How the sink calls its parts and their list, and what it notes with the
// object.
const (
	linesStem, pendingStem   = "lines", "pending"
	winnersName              = "index.json"
	noteGeneration, noteFrom = "generation", "from"
)

// ParseIndexPoint reads a checkpoint of an index in a bucket; false for another
// sink's.
func ParseIndexPoint(checkpoint []byte) (IndexPoint, bool) {
	var cp indexCheckpoint
	if json.Unmarshal(checkpoint, &cp) != nil || cp.Version != 1 || cp.Object == nil {
		return IndexPoint{}, false
	}
	return *cp.Object, true
}

// Checkpoint returns the checkpoint of an index that is at the point.
func (p IndexPoint) Checkpoint() ([]byte, error) { return json.Marshal(indexCheckpoint{1, &p}) }

// digest stands for the point in what is noted with the generation made of it.
func (p IndexPoint) digest() string {
	b, err := json.Marshal(p)
	if err != nil { // numbers can always be marshalled
		panic(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// OpenIndex opens the index at an address. store returns the socket of the
// store of objects. Errors are those of target.Look.
func OpenIndex(ctx context.Context, address string, store func() (string, error)) (*Index, error) {
	at, err := target.Absolute(address)
	if err != nil {
		return nil, err
	}
	socket, err := store()
	if err != nil {
		return nil, err
	}
	p, err := target.Look(ctx, address, true, socket)
	if err != nil {
		return nil, err
	}
	return &Index{place: p, name: path.Base(at), target: at}, nil
}

// Marked returns the id of the pipeline and the name of the sink that the
// marker names; both are empty where there is no marker.
func (x *Index) Marked(ctx context.Context) (pipeline, sink string, err error) {
	return x.place.Marked(ctx)
}

// Close lets go of the connections.
func (x *Index) Close() { x.place.Close() }

// IndexState is what is there of an index.
type IndexState struct {
	Point  IndexPoint // that its octets are read by: the parts are those that are there
	Object bool       // there is an object
	Merged bool       // into the object, since the checkpoint
	Flaws  []Flaw     // of parts and of their list, within the index's books
	Wrong  string     // why the next run refuses the object; empty: it doesn't
}

// At returns what is there of the index that was at a point when the ledger was
// written last. Nothing at all is an fs.ErrNotExist.
func (x *Index) At(ctx context.Context, p IndexPoint) (IndexState, error) {
	s := IndexState{Point: p, Object: true}
	size, notes, err := x.place.Noted(ctx, x.name)
	switch generation, _ := strconv.ParseInt(notes[noteGeneration], 10, 64); {
	case errors.Is(err, target.ErrMissing):
		s.Object = false
	case err != nil:
		return s, err
	case generation == p.Generation:
	case generation == p.Generation+1 && notes[noteFrom] == p.digest():
		s.Merged, s.Point = true, IndexPoint{Generation: generation, Length: size}
	default:
		s.Wrong = "it isn't one that the sink made of what the ledger committed"
	}
	if err := x.parts(ctx, &s); err != nil {
		return s, err
	}
	if !s.Object && (p.Length > 0 || len(s.Point.Lines) == 0 && len(p.Lines) > 0) {
		return s, fs.ErrNotExist
	}
	return s, nil
}

// parts looks for the parts of the point, and leaves those that are there.
func (x *Index) parts(ctx context.Context, s *IndexState) error {
	kept := map[string]bool{}
	for o, err := range x.place.Kept(ctx) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(o.Name, linesStem+"-") || strings.HasPrefix(o.Name, pendingStem+"-") {
			kept[o.Name] = true
		}
	}
	there := func(stem string, list []target.Part) []target.Part {
		var out []target.Part
		for _, p := range list {
			name := target.PartName(stem, p)
			if kept[name] {
				out = append(out, p)
			} else {
				s.Flaws = append(s.Flaws, Flaw{Missing: true, Part: true, Name: name, Text: "a part of the index isn't there"})
			}
			delete(kept, name)
		}
		return out
	}
	point := s.Point
	s.Point.Lines, s.Point.Pending = there(linesStem, point.Lines), there(pendingStem, point.Pending)
	for name := range kept {
		s.Flaws = append(s.Flaws, Flaw{Part: true, Name: name, Text: "a part of the index is none of those that the ledger committed"})
	}
	at := Flaw{Name: winnersName}
	said, err := x.Said(ctx)
	switch {
	case errors.Is(err, target.ErrMissing):
		at.Missing, at.Text = true, "the list of the index's parts isn't there: a lost ledger couldn't be made anew"
		s.Flaws = append(s.Flaws, at)
	case fault.Is(err, fault.Config):
		at.Text = err.Error()
		s.Flaws = append(s.Flaws, at)
	case err != nil:
		return err
	case said.Generation != point.Generation || !slices.Equal(said.Lines, point.Lines) || !slices.Equal(said.Pending, point.Pending):
		at.Text = "the list of the index's parts isn't the one that the ledger committed"
		s.Flaws = append(s.Flaws, at)
	}
	slices.SortFunc(s.Flaws, func(a, b Flaw) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// Said returns the point that the index's own list of parts names: for who has
// no ledger. An error is ErrMissing where there is none.
func (x *Index) Said(ctx context.Context) (IndexPoint, error) {
	b, err := x.place.Read(ctx, winnersName)
	if err != nil {
		return IndexPoint{}, err
	}
	p, ok := ParseIndexPoint(b)
	if !ok {
		return p, fault.New(fault.Config, "%s of the index %s can't be read", winnersName, x.target)
	}
	return p, nil
}

// Rebuilt returns what is there of an index of whose point only the bucket
// tells, and the point itself, as the sink can go on from there: pieces that
// are cut short aren't in it. cut reports that the object is one, which can't be
// left out. Nothing at all is an fs.ErrNotExist.
func (x *Index) Rebuilt(ctx context.Context) (s IndexState, cut bool, err error) {
	said, err := x.Said(ctx)
	if errors.Is(err, target.ErrMissing) || fault.Is(err, fault.Config) {
		size, notes, err := x.place.Noted(ctx, x.name)
		if err != nil {
			return s, false, missing(err)
		}
		said.Generation, _ = strconv.ParseInt(notes[noteGeneration], 10, 64)
		said.Length = size
	} else if err != nil {
		return s, false, err
	}
	if s, err = x.At(ctx, said); err != nil {
		return s, false, err
	}
	if s.Object {
		size, _, err := x.place.Noted(ctx, x.name)
		if err != nil {
			return s, false, missing(err)
		}
		in, _, err := x.place.Content(ctx, x.name, max(size-1, 0))
		if err != nil {
			return s, false, missing(err)
		}
		defer in.Close()
		last := [1]byte{'\n'}
		if _, err := io.ReadFull(in, last[:]); err != nil && size > 0 {
			return s, false, err
		}
		s.Point.Length = size
		if last[0] != '\n' {
			return s, true, nil
		}
	}
	for _, list := range []struct {
		stem  string
		parts *[]target.Part
	}{{linesStem, &s.Point.Lines}, {pendingStem, &s.Point.Pending}} {
		whole := []target.Part{}
		for _, p := range *list.parts {
			in, size, err := x.place.Part(ctx, list.stem, p, 0)
			if err != nil {
				return s, false, missing(err)
			}
			in.Close()
			ends, err := endsLine(ctx, x.place, list.stem, p, size)
			if err != nil {
				return s, false, err
			}
			if p.Octets = size; ends {
				whole = append(whole, p)
			}
		}
		*list.parts = whole
	}
	return s, false, nil
}

// Open returns the octets of the object, and how many they are.
func (x *Index) Open(ctx context.Context) (io.ReadCloser, int64, error) {
	in, size, err := x.place.Content(ctx, x.name, 0)
	return in, size, missing(err)
}

// Each calls f for the object, where there is one, and for each part; replaces
// says that its lines replace others.
func (x *Index) Each(ctx context.Context, s IndexState, f func(in io.Reader, replaces bool) error) error {
	if s.Object {
		in, _, err := x.Open(ctx)
		if err == nil {
			err = f(in, false)
			in.Close()
		}
		if err != nil {
			return err
		}
	}
	for _, list := range []struct {
		stem  string
		parts []target.Part
	}{{linesStem, s.Point.Lines}, {pendingStem, s.Point.Pending}} {
		for _, p := range list.parts {
			in, _, err := x.place.Part(ctx, list.stem, p, 0)
			if err == nil {
				err = f(in, list.stem == pendingStem)
				in.Close()
			}
			if err != nil {
				return missing(err)
			}
		}
	}
	return nil
}
