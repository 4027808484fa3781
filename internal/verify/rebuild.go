package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/output"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages/dedupe"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
)

// Rebuilt is what a ledger was made anew of.
type Rebuilt struct {
	Messages int64
	Sinks    []RebuiltSink
	Left     []string // what couldn't be taken, and why
	Aside    string   // where the ledger is kept that was damaged, or unused; empty: there was none
	Dedupe   bool     // the pipeline compares messages, and some couldn't be read for that
}

// RebuiltSink is one sink of it.
type RebuiltSink struct {
	Sink string
	Rows int64 // that were taken
	Left int64 // whose files aren't what the manifest says: the next run writes them again
}

// RebuildOptions say what a ledger is made anew of.
type RebuildOptions struct {
	Plan *plan.Plan
	Dir  string // of the state
	Name string // of the ledger

	// Store returns the socket of the store of objects. It is called only when
	// a sink's target is in a bucket.
	Store func() (string, error)
}

// rebuilder is a ledger being made anew.
type rebuilder struct {
	o      RebuildOptions
	ledger *ledger.Ledger
	result *Rebuilt
	index  map[string]indexLine // by id
	order  []message.ID
	items  map[message.ID]*rebuilt
	mode   dedupe.Mode // empty: messages aren't compared
}

// rebuilt is one message.
type rebuilt struct {
	octets int64
	sum    []byte
	fates  []ledger.Fate
	files  map[string]string // sink -> path
	read   readBack
	change []string // the stages that changed octets
}

// readBack is what a file that was read again tells.
type readBack struct {
	good bool        // it is what its manifest says
	mark uint64      // see ledger.Mark; of a mail
	key  *dedupe.Key // of a mail, when messages are compared
}

// Rebuild makes a ledger anew from what the sinks keep: manifests, whose files
// are read again, and indexes. It comes into place whole or not at all. Errors
// are of class Config where the user must do something first.
func Rebuild(ctx context.Context, o RebuildOptions) (*Rebuilt, error) {
	final := filepath.Join(o.Dir, o.Name+".db")
	aside, err := ledger.PutAside(ctx, o.Dir, o.Name)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(final); err == nil {
		return nil, fault.New(fault.Config, "there is a ledger, and it is well: %s", final).WithKey("state").
			WithHint("move it away first, with %s-wal and %s-shm where they are there", final, final)
	}
	draft := o.Name + ".rebuild"
	if err := removeLedger(o.Dir, draft); err != nil {
		return nil, err
	}
	l, err := ledger.Open(ctx, o.Dir, draft)
	if err != nil {
		return nil, err
	}
	b := &rebuilder{o: o, ledger: l, result: &Rebuilt{Aside: aside}, index: map[string]indexLine{}, items: map[message.ID]*rebuilt{}}
	err = b.rebuild(ctx)
	err = errors.Join(err, l.Close())
	if err == nil {
		_, err = os.Stat(final)
		if errors.Is(err, fs.ErrNotExist) {
			err = os.Rename(filepath.Join(o.Dir, draft+".db"), final)
		} else if err == nil {
			err = fault.New(fault.Config, "a run made the ledger %s meanwhile", final)
		}
	}
	if err == nil {
		err = target.SyncDir(o.Dir)
	}
	return b.result, errors.Join(target.DiskError(err, "make the ledger %s anew", final), removeLedger(o.Dir, draft))
}

// removeLedger removes the files of a ledger that isn't in use.
func removeLedger(dir, name string) error {
	for _, end := range []string{".db", ".db-wal", ".db-shm", ".db.sum", ".lock"} {
		if err := os.Remove(filepath.Join(dir, name+end)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return target.DiskError(err, "clean up in %s", dir)
		}
	}
	return nil
}

func (b *rebuilder) rebuild(ctx context.Context) error {
	if b.o.Plan.Chain != nil {
		for _, s := range b.o.Plan.Chain.Stages() {
			if s.Dedupe != "" {
				b.mode = s.Dedupe
			}
		}
	}
	if err := b.takeOver(ctx); err != nil {
		return err
	}
	checkpoints := map[ledger.TargetID][]byte{}
	for _, records := range []bool{true, false} { // an index tells more of a message than a manifest
		for i := range b.o.Plan.Sinks {
			s := &b.o.Plan.Sinks[i]
			if s.Prepared.Record != records {
				continue
			}
			read := b.files
			switch {
			case records && s.Address != "":
				read = b.object
			case records:
				read = b.lines
			}
			cp, err := read(ctx, s)
			if err != nil {
				return err
			}
			t, err := b.ledger.Target(ctx, s.Name, s.Prepared.Target)
			if err != nil {
				return err
			}
			if cp == nil {
				continue
			}
			checkpoints[t.ID] = cp
			// The next run opens it, and puts in order what is behind.
			if err := b.ledger.MarkDirty(ctx, t.ID); err != nil {
				return err
			}
		}
	}
	return b.commit(ctx, checkpoints)
}

// books returns where an index in a folder has its marker.
func books(s *plan.Sink) string {
	t := s.Prepared.Target
	return filepath.Join(filepath.Dir(t), target.Books, filepath.Base(t))
}

// marked returns what the marker of a sink's target says.
func (b *rebuilder) marked(ctx context.Context, s *plan.Sink) (pipeline, sink string, err error) {
	if s.Prepared.Record && s.Address == "" {
		return target.Marked(books(s))
	}
	k := &kept{plan: s}
	if err := k.open(ctx, b.o.Store); err != nil {
		return "", "", err
	}
	defer k.close()
	if k.index != nil {
		return k.index.Marked(ctx)
	}
	return k.files.Marked(ctx)
}

// takeOver finds whose the targets are. They must all be one pipeline's.
func (b *rebuilder) takeOver(ctx context.Context) error {
	found := ""
	for i := range b.o.Plan.Sinks {
		s := &b.o.Plan.Sinks[i]
		pipeline, sink, err := b.marked(ctx, s)
		switch {
		case err != nil:
			return err
		case pipeline == "":
			b.result.Left = append(b.result.Left, fmt.Sprintf("sink %s: %s has no marker: nothing of it is taken", s.Name, s.Prepared.Target))
		case sink != s.Name || found != "" && pipeline != found:
			return fault.New(fault.Config, "the target %s is that of the sink %s of the pipeline %s, which isn't that of the others", s.Prepared.Target, sink, pipeline).
				WithHint("name the sinks and targets as they were in the file that wrote them")
		default:
			found = pipeline
		}
	}
	if found == "" {
		return fault.New(fault.Config, "no target has a marker: there is nothing to make a ledger of").
			WithHint("mount the disks that the targets are on; else run again, and everything is written anew")
	}
	return b.ledger.TakeOver(ctx, found)
}

func (b *rebuilder) item(id message.ID) *rebuilt {
	it := b.items[id]
	if it == nil {
		it = &rebuilt{octets: -1, files: map[string]string{}}
		b.items[id] = it
		b.order = append(b.order, id)
	}
	return it
}

// files reads a manifest, and takes the rows whose files are what they say.
func (b *rebuilder) files(ctx context.Context, s *plan.Sink) ([]byte, error) {
	root := s.Prepared.Target
	rows := map[message.ID]target.Row{}
	var order []message.ID
	taken := RebuiltSink{Sink: s.Name}
	files, err := output.Open(ctx, root, s.Address, b.o.Store)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	for l, err := range files.Lines(ctx, nil) {
		if errors.Is(err, fs.ErrNotExist) {
			b.result.Left = append(b.result.Left, fmt.Sprintf("sink %s: %s has no manifest: nothing of it is taken", s.Name, root))
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if l.Err != nil {
			taken.Left++
			continue
		}
		if l.Row.Part != "" { // the rest of a message's files, and a checkpoint of another form, aren't told by rows
			b.result.Left = append(b.result.Left, fmt.Sprintf("sink %s: it makes several files of a message: the next run writes them again, over the same names", s.Name))
			return nil, nil
		}
		if _, ok := rows[l.Row.ID]; !ok {
			order = append(order, l.Row.ID)
		}
		rows[l.Row.ID] = l.Row
	}
	if len(rows) == 0 {
		return nil, nil // nothing tells whose form its checkpoint has
	}
	read := make([]readBack, len(order))
	if err := b.readAgain(ctx, s, files, order, rows, read); err != nil {
		return nil, err
	}
	for i, id := range order {
		row := rows[id]
		if !read[i].good {
			taken.Left++
			b.result.Left = append(b.result.Left, fmt.Sprintf("sink %s: %s isn't what its manifest says: the next run writes it again", s.Name, row.Path))
			continue
		}
		taken.Rows++
		it := b.item(id)
		it.files[s.Name] = row.Path
		if l, ok := b.index[idText(id)]; ok && l.SHA256 != "" {
			it.know(l.Octets, l.SHA256)
			it.change = l.Changed
		} else if isEML(row.Path) {
			it.know(&row.Size, row.SHA256)
		}
		if read[i].mark != 0 {
			it.read = read[i]
		}
	}
	b.result.Sinks = append(b.result.Sinks, taken)
	return files.Whole()
}

func (it *rebuilt) know(octets *int64, sum string) {
	if raw, err := hex.DecodeString(sum); err == nil && len(raw) == sha256.Size {
		it.sum = raw
	}
	if octets != nil {
		it.octets = *octets
	}
}

// readAgain reads the files of a manifest, some at once, and makes them
// durable: the ledger must not say so before (I3).
func (b *rebuilder) readAgain(ctx context.Context, s *plan.Sink, files output.Files, order []message.ID, rows map[message.ID]target.Row, read []readBack) error {
	root := s.Prepared.Target
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make(chan int, 256)
	var wg sync.WaitGroup
	for range files.AtOnce() {
		wg.Go(func() {
			r := &reader{sum: sha256.New(), buf: make([]byte, readSize)}
			for i := range jobs {
				if ctx.Err() != nil {
					continue
				}
				row := rows[order[i]]
				var err error
				if read[i], err = b.readOne(ctx, r, files, &row); err != nil {
					cancel(err)
				}
			}
		})
	}
	dirs := map[string]bool{root: true}
	for i := range order {
		if ctx.Err() != nil {
			break
		}
		jobs <- i
		for d := filepath.Dir(filepath.FromSlash(rows[order[i]].Path)); d != "."; d = filepath.Dir(d) {
			dirs[filepath.Join(root, d)] = true
		}
	}
	close(jobs)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.Address != "" {
		return nil // an object is durable when it is there
	}
	for d := range dirs {
		if err := target.SyncDir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return target.DiskError(err, "make the directory %s durable", d)
		}
	}
	return nil
}

// readOne reads a file. An error says that no other can be read either.
func (b *rebuilder) readOne(ctx context.Context, r *reader, files output.Files, row *target.Row) (got readBack, err error) {
	path := row.Path
	f, _, err := files.Open(ctx, path)
	if err != nil {
		return got, lasting(err)
	}
	defer f.Close()
	sum, err := r.read(f, func(head []byte) {
		end := headerEnd(head)
		if end == 0 || !isEML(path) {
			return
		}
		got.mark = ledger.Mark(head[:end])
		if b.mode == "" {
			return
		}
		if k, ok := b.mode.KeyOf(message.NewHeader(head[:end])); ok {
			got.key = &k
		}
	})
	got.good = err == nil && hex.EncodeToString(sum[:]) == row.SHA256
	if file, ok := f.(*os.File); ok && got.good {
		got.good = file.Sync() == nil
	}
	return got, lasting(err)
}

// lasting returns an error that isn't of one file: its server's, or the store's.
func lasting(err error) error {
	if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Throttled) || fault.Is(err, fault.Auth) {
		return err
	}
	return nil
}

// headerEnd returns where the header of a mail ends, 0 when that isn't seen.
func headerEnd(b []byte) int {
	end := 0
	for _, empty := range []string{"\r\n\r\n", "\n\n"} {
		if i := bytes.Index(b, []byte(empty)); i >= 0 && (end == 0 || i+len(empty) < end) {
			end = i + len(empty)
		}
	}
	return end
}

// commit stores everything, an epoch at a time.
func (b *rebuilder) commit(ctx context.Context, checkpoints map[ledger.TargetID][]byte) error {
	data := false
	for i := range b.o.Plan.Sinks {
		data = data || !b.o.Plan.Sinks[i].Prepared.Record
	}
	if !data { // the index is all there is
		for text, l := range b.index {
			if id, ok := l.idOf(); ok && idText(id) == text {
				b.item(id).know(l.Octets, l.SHA256)
			}
		}
	}
	var settled []ledger.Settled
	claims := map[ledger.Box][]ledger.Claim{}
	held := map[[16]byte]bool{}
	for _, id := range b.order {
		it := b.items[id]
		box, err := b.ledger.Box(ctx, id.Source, id.Mailbox, id.UIDValidity)
		if err != nil {
			return err
		}
		for i := range b.o.Plan.Sinks {
			s := &b.o.Plan.Sinks[i]
			t, err := b.ledger.Target(ctx, s.Name, s.Prepared.Target)
			if err != nil {
				return err
			}
			if checkpoints[t.ID] == nil {
				continue
			}
			if f, ok := b.fate(s, id, it); ok {
				f.Target = t.ID
				it.fates = append(it.fates, f)
			}
		}
		if len(it.fates) == 0 {
			continue
		}
		b.result.Messages++
		if len(it.change) > 0 {
			it.read.mark = 0 // the file's header may not be the server's
		}
		settled = append(settled, ledger.Settled{Box: box, ID: id, Mark: it.read.mark, Changed: it.change, Octets: it.octets, SHA256: it.sum, Fates: it.fates, Fresh: true})
		if b.mode != "" {
			b.claim(claims, held, box, id, it)
		}
	}
	const epoch = 4096
	for len(settled) > 0 {
		n := min(epoch, len(settled))
		if err := b.ledger.Commit(ctx, ledger.Epoch{Settled: settled[:n]}); err != nil {
			return err
		}
		settled = settled[n:]
	}
	for box, list := range claims {
		if err := b.ledger.ClaimWritten(ctx, box, list); err != nil {
			return err
		}
	}
	return b.ledger.Commit(ctx, ledger.Epoch{Checkpoints: checkpoints})
}

// fate returns what a sink has of a message; false when that is nothing.
func (b *rebuilder) fate(s *plan.Sink, id message.ID, it *rebuilt) (ledger.Fate, bool) {
	if !s.Prepared.Record {
		path, ok := it.files[s.Name]
		return ledger.Fate{Class: ledger.Written, Receipt: path}, ok
	}
	l, ok := b.index[idText(id)]
	if !ok {
		return ledger.Fate{}, false
	}
	for name, path := range it.files {
		if l.Files[name] != path {
			return ledger.Fate{Class: ledger.Stale}, true // it is sent again
		}
	}
	return ledger.Fate{Class: ledger.Written}, true
}

// claim notes what a message shares with its copies: else one of them would be
// written beside it.
func (b *rebuilder) claim(claims map[ledger.Box][]ledger.Claim, held map[[16]byte]bool, box ledger.Box, id message.ID, it *rebuilt) {
	k := it.read.key
	if l, ok := b.index[idText(id)]; k == nil && ok && b.mode == dedupe.MessageID {
		if found, ok := b.mode.KeyOf(l.header()); ok {
			k = &found
		}
	}
	if k == nil {
		b.result.Dedupe = b.result.Dedupe || b.mode == dedupe.Content
		return
	}
	c := ledger.Claim{ID: id, Digest: k.Digest, Kin: k.Kin}
	if b.mode == dedupe.Content {
		c.Kin = k.Digest
		if held[k.Digest] {
			c.Digest = dedupe.Of(k.Digest, it.sum)
		}
	}
	held[c.Digest] = true
	claims[box] = append(claims[box], c)
}
