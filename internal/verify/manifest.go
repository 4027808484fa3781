package verify

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mailhaul/pipeline/pkg/target"
)

func isEML(name string) bool { return strings.EqualFold(path.Ext(name), ".eml") }
func isMSG(name string) bool { return strings.EqualFold(path.Ext(name), ".msg") }

// readManifest reads the manifest of a directory target.
func (v *verifier) readManifest(k *kept) error {
	root := k.plan.Prepared.Target
	committed, ours := target.CommittedManifest(k.target.Checkpoint)
	if k.target.Checkpoint != nil && !ours {
		k.gone = true
		k.result.Note = "not checked: this sink keeps no manifest that is known here"
		return nil
	}
	if k.result.Messages == 0 && k.target.Checkpoint == nil {
		v.nothingYet(k, filepath.Join(root, target.Books))
		return nil
	}
	if !v.checkMarker(k, filepath.Join(root, target.Books)) {
		return nil
	}
	same, other := 0, 0
	for l, err := range target.ManifestLines(root) {
		if errors.Is(err, fs.ErrNotExist) {
			k.bare = true
			v.found(-1, Finding{Kind: Missing, Place: Manifest, Sink: k.plan.Name, Path: target.ManifestName, Count: k.result.Messages},
				"the manifest %s isn't there", target.ManifestPath(root))
			break
		}
		if err != nil {
			return err
		}
		if l.Offset >= committed {
			if k.target.Dirty {
				break // what a run that was cut short left: the next one cuts it off
			}
			if !v.lacks(k, &l) {
				v.strayRow(k, &l)
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
	return nil
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
func (v *verifier) nothingYet(k *kept, books string) {
	k.gone = true
	k.result.Note = "nothing was written to it yet"
	pipeline, sink, err := target.Marked(books)
	if err != nil || pipeline == "" || pipeline == v.o.Ledger.Pipeline() && sink == k.plan.Name {
		return
	}
	k.result.Note = "not checked: this ledger has nothing of it"
	v.found(-1, Finding{Kind: Changed, Place: Target, Sink: k.plan.Name, Path: target.Books + "/target.json"},
		"the target %s is marked as that of sink %s of pipeline %s; if that was this one, its ledger is lost: --rebuild makes it anew", k.plan.Prepared.Target, sink, pipeline)
}

// checkMarker looks for the target and its marker. It reports whether the
// target is there.
func (v *verifier) checkMarker(k *kept, books string) bool {
	root := k.plan.Prepared.Target
	f := Finding{Kind: Missing, Place: Target, Sink: k.plan.Name, Count: k.result.Messages}
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		k.gone = true
		v.found(-1, f, "the target %s isn't there: is its disk mounted?", root)
		return false
	}
	pipeline, sink, err := target.Marked(books)
	f.Count, f.Path = 0, target.Books+"/target.json"
	switch {
	case err != nil:
		f.Kind = Changed
		v.found(-1, f, "%v", err)
	case pipeline == "":
		v.found(-1, f, "the marker of the target %s isn't there", root)
	case pipeline != v.o.Ledger.Pipeline() || sink != k.plan.Name:
		f.Kind = Changed
		v.found(-1, f, "the target %s is marked as that of sink %s of pipeline %s", root, sink, pipeline)
	}
	return true
}
