package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"path/filepath"
	"strings"
	"sync"

	"github.com/mailhaul/pipeline/pkg/message"
)

// job is a file that is to be looked at.
type job struct {
	name string // within the target
	size int64  // as it was listed; -1: it wasn't told
	item int32
}

// reader is one worker's own.
type reader struct {
	sum    hash.Hash
	buf    []byte
	files  int64
	octets int64
	hashed int64
}

const readSize = 256 << 10

// readFiles looks through a target, and reads its files again.
func (v *verifier) readFiles(ctx context.Context, k *kept, heads bool) error {
	if k.gone {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	k.fail = cancel
	jobs := make(chan []job, 64)
	readers := make([]*reader, k.files.AtOnce())
	var wg sync.WaitGroup
	for i := range readers {
		r := &reader{sum: sha256.New(), buf: make([]byte, readSize)}
		readers[i] = r
		wg.Go(func() {
			for batch := range jobs {
				for _, j := range batch {
					if ctx.Err() == nil {
						v.readFile(ctx, k, r, j, heads)
					}
				}
			}
		})
	}
	err := v.walk(ctx, k, jobs)
	close(jobs)
	wg.Wait()
	for _, r := range readers {
		k.result.Files += r.files
		k.result.Octets += r.octets
		k.result.Hashed += r.hashed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// walk sends what lies in the target to the workers, some at a time.
func (v *verifier) walk(ctx context.Context, k *kept, jobs chan<- []job) error {
	most := 256
	if k.plan.Address != "" {
		most = 4 // each takes round trips, which is what a batch would have one worker wait for
	}
	batch := make([]job, 0, most)
	send := func() {
		if len(batch) > 0 {
			jobs <- batch
			batch = make([]job, 0, most)
		}
	}
	defer send()
	for f, err := range k.files.All(ctx) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		n, ok := k.places[k.hash(f.Name)]
		if !ok {
			if !v.ofAnother(k, k.files.Path(f.Name)) {
				v.found(-1, Finding{Kind: Extra, Place: Output, Sink: k.plan.Name, Path: f.Name}, "no message of this sink has this file")
			}
			continue
		}
		k.rows[n].seen = true
		if batch = append(batch, job{f.Name, f.Size, n}); len(batch) == most {
			send()
		}
	}
	return nil
}

// ofAnother reports whether a path is the output of another sink of the plan,
// which stands within this one's target, or the pipeline's own.
func (v *verifier) ofAnother(k *kept, path string) bool {
	below := func(root, separator string) bool { return path == root || strings.HasPrefix(path, root+separator) }
	for _, other := range v.sinks {
		if t := other.plan.Prepared.Target; other != k && (below(t, string(filepath.Separator)) || other.plan.Address != "" && below(t, "/")) {
			return true
		}
	}
	for _, own := range v.o.Beside {
		if below(own, string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// readFile looks at one file, and reads it when it is among the sample or its
// manifest and the ledger already disagree.
func (v *verifier) readFile(ctx context.Context, k *kept, r *reader, j job, heads bool) {
	row, it := &k.rows[j.item], &v.table.items[j.item]
	at := Finding{Kind: Changed, Place: Output, Sink: k.plan.Name, Path: j.name}
	r.files++
	defer v.o.Progress.Read.Add(1)
	want := row.size
	if !row.row && !it.changed {
		want = it.octets
	}
	disagree := k.exact && it.hashed && !it.changed && row.row && row.sum != it.sum
	enough := func(size int64) bool { return !v.sampled(j.item) && size == want && !disagree }
	if j.size >= 0 && enough(j.size) {
		return // the listing told all that is wanted
	}
	f, size, err := k.files.Open(ctx, j.name)
	if err != nil {
		v.unreadable(ctx, k, j.item, at, err)
		return
	}
	defer f.Close()
	if enough(size) {
		return
	}
	head := uint64(0)
	sum, err := r.read(f, func(b []byte) {
		if heads && k.exact && !it.changed {
			head = headOf(b)
		}
	})
	if err != nil {
		v.unreadable(ctx, k, j.item, at, err)
		return
	}
	r.hashed++
	v.compare(k, j, row, it, sum, size)
	if head != 0 && !row.bad {
		it.head = head
	}
}

// unreadable tells of a file that can't be read. Where that is the server's or
// the store's doing, no other can be read either: it ends the reading.
func (v *verifier) unreadable(ctx context.Context, k *kept, n int32, at Finding, err error) {
	switch {
	case ctx.Err() != nil: // told already
	case lasting(err) != nil:
		k.fail(fmt.Errorf("sink %s: %w", k.plan.Name, err))
	default:
		k.rows[n].bad = true
		v.found(n, at, "it can't be read: %v", err)
	}
}

// compare says which of file, manifest and ledger is wrong: the one that the
// others outvote.
func (v *verifier) compare(k *kept, j job, row *row, it *item, sum [32]byte, size int64) {
	at := Finding{Sink: k.plan.Name, Path: j.name, Kind: Changed}
	sent := k.exact && it.hashed && !it.changed // the ledger knows what the file must be
	switch {
	case row.row && sum == row.sum && size == row.size:
		if sent && it.sum != sum && it.known {
			row.bad = true
			at.Place, at.Sink = InLedger, ""
			v.found(j.item, at, "the ledger's sha256 isn't that of the file and its manifest, which agree")
		}
	case row.row && sent && sum == it.sum:
		row.bad = true
		at.Place = Manifest
		v.found(j.item, at, "the manifest's row isn't true: the file is what the ledger says the server sent")
	case row.row:
		row.bad = true
		at.Place = Output
		if size != row.size {
			v.found(j.item, at, "it has %d octets, %d were written", size, row.size)
		} else {
			v.found(j.item, at, "its octets aren't those that were written (the same number, another sha256)")
		}
	case sent && sum != it.sum:
		row.bad = true
		at.Place = Output
		v.found(j.item, at, "its octets aren't those that the server sent")
	}
}

// read hashes a file to its end, and shows the first of its octets.
func (r *reader) read(f io.Reader, first func([]byte)) (sum [32]byte, err error) {
	r.sum.Reset()
	begun := false
	for {
		n, err := io.ReadFull(f, r.buf) // what a server sends comes in small pieces
		if n > 0 {
			if !begun {
				begun = true
				first(r.buf[:n])
			}
			r.sum.Write(r.buf[:n])
			r.octets += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			r.sum.Sum(sum[:0])
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
}

// headSeed is the same for all heads of a process.
var headSeed = maphash.MakeSeed()

// headOf hashes what the index tells of a header, out of the first octets of
// a mail; 0 when the header doesn't end there.
func headOf(b []byte) uint64 {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if lf := bytes.Index(b, []byte("\n\n")); lf >= 0 && (end < 0 || lf < end) {
		end = lf
	}
	if end < 0 {
		return 0
	}
	h := message.NewHeader(b[:end+2])
	var from []string
	for _, a := range h.Addresses("From") {
		from = append(from, a.Name, a.Address)
	}
	return headHash(h.Subject(), h.MessageID(), from)
}

// headHash is never 0.
func headHash(subject, id string, from []string) uint64 {
	var h maphash.Hash
	h.SetSeed(headSeed)
	for _, s := range append([]string{subject, id}, from...) {
		h.WriteString(strings.ToValidUTF8(s, "�"))
		h.WriteByte(0)
	}
	return h.Sum64() | 1
}
