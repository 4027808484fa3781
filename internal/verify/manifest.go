package verify

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

func isEML(name string) bool { return strings.EqualFold(path.Ext(name), ".eml") }
func isMSG(name string) bool { return strings.EqualFold(path.Ext(name), ".msg") }

// readManifest reads the manifest of a target of files.
func (v *verifier) readManifest(ctx context.Context, k *kept) error {
	if k.target.Checkpoint != nil && !k.files.Knows(k.target.Checkpoint) {
		k.gone = true
		k.result.Note = "not checked: this sink keeps no manifest that is known here"
		return nil
	}
	if k.result.Messages == 0 && k.target.Checkpoint == nil {
		v.nothingYet(ctx, k, k.files)
		return nil
	}
	if there, err := v.checkMarker(ctx, k); !there || err != nil {
		return err
	}
	same, other := 0, 0
	for l, err := range k.files.Lines(ctx, k.target.Checkpoint) {
		if errors.Is(err, fs.ErrNotExist) {
			k.bare = true
			v.found(-1, Finding{Kind: Missing, Place: Manifest, Sink: k.plan.Name, Path: target.ManifestName, Count: k.result.Messages},
				"the manifest %s isn't there", k.files.Manifest())
			break
		}
		if err != nil {
			return err
		}
		if l.Behind {
			if k.target.Dirty {
				break // what a run that was cut short left: the next one cuts it off
			}
			if !v.lacks(k, &l.ManifestLine) {
				v.strayRow(k, &l.ManifestLine)
				continue
			}
		}
		if l.Err != nil {
			k.broken = append(k.broken, brokenLine{l.Number, l.Err.Error()})
			continue
		}
		n := v.owner(k, &l.Row)
		r := k.row(n)
		r.row, r.offset, r.size = true, l.Offset, l.Row.Size
		r.listed = k.hash(l.Row.Path)
		k.places[r.listed] = n
		if sum, err := hex.DecodeString(l.Row.SHA256); err == nil && len(sum) == len(r.sum) {
			copy(r.sum[:], sum)
		} else {
			r.sum = [32]byte{}
		}
		if it := &v.table.items[n]; it.hashed && !it.changed {
			if it.sum == r.sum {
				same++
			} else {
				other++
			}
		}
	}
	// A sink whose files are the server's octets says so by its hashes; a
	// few that differ are what is looked for.
	k.exact = k.eml && same >= other
	return v.restOfBooks(ctx, k)
}

// restOfBooks tells of what else is wrong with what a sink keeps beside its
// files. After a run that was cut short the next one puts it in order.
func (v *verifier) restOfBooks(ctx context.Context, k *kept) error {
	if k.target.Dirty {
		return nil
	}
	rest, err := k.files.Rest(ctx, k.target.Checkpoint)
	for _, flaw := range rest {
		f := Finding{Kind: Extra, Place: Manifest, Sink: k.plan.Name, Path: flaw.Name}
		switch {
		case flaw.Upload:
			f.Place = Output
		case flaw.Missing:
			f.Kind, k.bare = Missing, k.bare || flaw.Part
		case !flaw.Part:
			f.Kind = Changed
		}
		v.found(-1, f, "%s", flaw.Text)
	}
	return err
}

// owner returns the message that a row is of. A message whose server gave it a
// new id is known to the ledger by that, and by the same file.
func (v *verifier) owner(k *kept, r *target.Row) int32 {
	n := v.table.find(r.ID)
	if n >= 0 && int(n) < len(k.rows) && k.rows[n].written {
		return n
	}
	if other, ok := k.places[k.hash(r.Path)]; ok && k.rows[other].written {
		return other
	}
	return v.table.add(r.ID)
}

// lacks reports whether a row is one that the ledger says is there, and that
// hasn't come yet: it was moved behind by one that was added before it.
func (v *verifier) lacks(k *kept, l *target.ManifestLine) bool {
	n := v.table.find(l.Row.ID)
	return l.Err == nil && n >= 0 && int(n) < len(k.rows) && k.rows[n].written && !k.rows[n].row
}

// strayRow tells of a row that stands behind all that was ever committed.
func (v *verifier) strayRow(k *kept, l *target.ManifestLine) {
	f := Finding{Kind: Extra, Place: Manifest, Sink: k.plan.Name, Path: l.Row.Path}
	if l.Err != nil {
		v.found(-1, f, "row %d of the manifest is behind what was committed, and can't be read", l.Number)
		return
	}
	id := l.Row.ID
	f.Source, f.Mailbox, f.ID = id.Source, id.Mailbox, id.String()
	v.found(-1, f, "row %d of the manifest is behind what was committed", l.Number)
}

// nothingYet notes that the ledger has nothing of a sink. That holds only where
// the target is nobody else's: a new ledger beside the output of a lost one is
// no proof of anything.
func (v *verifier) nothingYet(ctx context.Context, k *kept, marks marks) {
	k.gone = true
	k.result.Note = "nothing was written to it yet"
	pipeline, sink, err := marks.Marked(ctx)
	if err != nil || pipeline == "" || pipeline == v.o.Ledger.Pipeline() && sink == k.plan.Name {
		return
	}
	k.result.Note = "not checked: this ledger has nothing of it"
	v.found(-1, Finding{Kind: Changed, Place: Target, Sink: k.plan.Name, Path: target.Books + "/target.json"},
		"the target %s is marked as that of sink %s of pipeline %s; if that was this one, its ledger is lost: --rebuild makes it anew", k.plan.Prepared.Target, sink, pipeline)
}

// checkMarker looks for the target and its marker. It reports whether the
// target is there.
func (v *verifier) checkMarker(ctx context.Context, k *kept) (bool, error) {
	root := k.plan.Prepared.Target
	f := Finding{Kind: Missing, Place: Target, Sink: k.plan.Name, Count: k.result.Messages}
	there, err := k.files.Present(ctx)
	if err != nil {
		return false, err
	}
	if !there {
		k.gone = true
		lost := "is its disk mounted?"
		if k.plan.Address != "" {
			lost = "there is nothing of it in the bucket"
		}
		v.found(-1, f, "the target %s isn't there: %s", root, lost)
		return false, nil
	}
	f.Count, f.Path = 0, target.Books+"/target.json"
	return true, v.checkMarks(ctx, k.files, f, "the target "+root)
}

// marks is what has a marker: a folder, a place in a bucket, an index.
type marks interface {
	Marked(ctx context.Context) (pipeline, sink string, err error)
}

// checkMarks looks at a marker. An error is one of reaching it.
func (v *verifier) checkMarks(ctx context.Context, at marks, f Finding, what string) error {
	pipeline, sink, err := at.Marked(ctx)
	switch {
	case fault.Is(err, fault.Unavailable), fault.Is(err, fault.Throttled):
		return err
	case err != nil:
		f.Kind = Changed
		v.found(-1, f, "%v", err)
	case pipeline == "":
		v.found(-1, f, "the marker of %s isn't there", what)
	case pipeline != v.o.Ledger.Pipeline() || sink != f.Sink:
		f.Kind = Changed
		v.found(-1, f, "%s is marked as that of sink %s of pipeline %s", what, sink, pipeline)
	}
	return nil
}
