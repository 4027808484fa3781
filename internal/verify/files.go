package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
)

// job is a file that is to be looked at.
type job struct {
	name string // within the target
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

// readFiles walks a directory target, and reads its files again.
func (v *verifier) readFiles(ctx context.Context, k *kept, heads bool) error {
	if k.gone {
		return nil
	}
	jobs := make(chan []job, 64)
	readers := make([]*reader, workers())
	var wg sync.WaitGroup
	for i := range readers {
		r := &reader{sum: sha256.New(), buf: make([]byte, readSize)}
		readers[i] = r
		wg.Go(func() {
			for batch := range jobs {
				for _, j := range batch {
					if ctx.Err() == nil {
						v.readFile(k, r, j, heads)
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
	return err
}

// walk sends what lies in the target to the workers, a directory at a time.
func (v *verifier) walk(ctx context.Context, k *kept, jobs chan<- []job) error {
	root := k.plan.Prepared.Target
	const most = 256
	batch := make([]job, 0, most)
	send := func() {
		if len(batch) > 0 {
			jobs <- batch
			batch = make([]job, 0, most)
		}
	}
	defer send()
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it went away while we looked: what is missing is found by its row
			}
			return errors.Join(target.DiskError(err, "look through the target %s", root), ctx.Err())
		}
		if d.IsDir() {
			if d.Name() == target.Books || d.Name() == "lost+found" {
				return fs.SkipDir
			}
			return nil
		}
		name := filepath.ToSlash(strings.TrimPrefix(path[len(root):], string(filepath.Separator)))
		n, ok := k.places[k.hash(name)]
		if !ok {
			if !v.ofAnother(k, path) {
				v.found(-1, Finding{Kind: Extra, Place: Output, Sink: k.plan.Name, Path: name}, "no message of this sink has this file")
			}
			return nil
		}
		k.rows[n].seen = true
		if batch = append(batch, job{name, n}); len(batch) == most {
			send()
		}
		return nil
	})
}

// ofAnother reports whether a path is the output of another sink of the plan,
// which stands within this one's target, or the pipeline's own.
func (v *verifier) ofAnother(k *kept, path string) bool {
	for _, other := range v.sinks {
		if t := other.plan.Prepared.Target; other != k && (path == t || strings.HasPrefix(path, t+string(filepath.Separator))) {
			return true
		}
	}
	for _, own := range v.o.Beside {
		if path == own || strings.HasPrefix(path, own+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// readFile looks at one file, and reads it when it is among the sample or its
// manifest and the ledger already disagree.
func (v *verifier) readFile(k *kept, r *reader, j job, heads bool) {
	row, it := &k.rows[j.item], &v.table.items[j.item]
	at := Finding{Kind: Changed, Place: Output, Sink: k.plan.Name, Path: j.name}
	path := filepath.Join(k.plan.Prepared.Target, filepath.FromSlash(j.name))
	r.files++
	f, err := openFile(path)
	if err != nil {
		row.bad = true
		v.found(j.item, at, "it can't be read: %v", err)
		return
	}
	defer f.Close()
	size, regular, err := f.stat()
	if err != nil || !regular {
		row.bad = true
		v.found(j.item, at, "it is no regular file")
		return
	}
	want := row.size
	if !row.row && !it.changed {
		want = it.octets
	}
	disagree := k.exact && it.hashed && !it.changed && row.row && row.sum != it.sum
	if !v.sampled(j.item) && size == want && !disagree {
		return
	}
	head := uint64(0)
	sum, err := r.read(f, func(b []byte) {
		if heads && k.exact && !it.changed {
			head = headOf(b)
		}
	})
	if err != nil {
		row.bad = true
		v.found(j.item, at, "it can't be read: %v", err)
		return
	}
	r.hashed++
	v.compare(k, j, row, it, sum, size)
	if head != 0 && !row.bad {
		it.head = head
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
		n, err := f.Read(r.buf)
		if n > 0 {
			if !begun {
				begun = true
				first(r.buf[:n])
			}
			r.sum.Write(r.buf[:n])
			r.octets += int64(n)
		}
		if err == io.EOF {
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

// openedFile is a file that is only read from its start to its end.
type openedFile struct{ *os.File }

func openFile(path string) (openedFile, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return openedFile{}, err
	}
	if !info.Mode().IsRegular() {
		return openedFile{}, errors.New("it is no regular file")
	}
	f, err := os.Open(path)
	return openedFile{f}, err
}

func (f openedFile) stat() (size int64, regular bool, err error) {
	info, err := f.File.Stat()
	if err != nil {
		return 0, false, err
	}
	return info.Size(), info.Mode().IsRegular(), nil
}
