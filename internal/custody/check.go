package custody

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

// chain is what the records of a folder say together.
type chain struct {
	folders []int           // numbers that are there, in order
	files   map[string]sums // by hash: everything as of the newest record
	sums    map[int]string  // of each record.json
	broken  map[int]string  // records that can't be followed, and why
	sinks   []Sink          // of the newest record
}

func (c *chain) last() int {
	if len(c.folders) == 0 {
		return 0
	}
	return c.folders[len(c.folders)-1]
}

func (c *chain) previous() *Previous {
	n := c.last()
	if n == 0 {
		return nil
	}
	return &Previous{Number: n, SHA256: c.sums[n]}
}

// readChain adds up what each record added and removed.
func readChain(folder string) (*chain, error) {
	c := &chain{files: map[string]sums{}, sums: map[int]string{}, broken: map[int]string{}}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, target.DiskError(err, "read the custody folder %s", folder)
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 && e.IsDir() && folderName(n) == e.Name() {
			c.folders = append(c.folders, n)
		}
	}
	slices.Sort(c.folders)
	var newest *Record
	for _, n := range c.folders {
		dir := filepath.Join(folder, folderName(n))
		b, err := os.ReadFile(filepath.Join(dir, RecordName))
		if err != nil {
			c.broken[n] = fmt.Sprintf("record %d can't be read: %v", n, err)
			continue
		}
		c.sums[n] = sumOf(b)
		var r Record
		if err := json.Unmarshal(b, &r); err != nil {
			c.broken[n] = fmt.Sprintf("record %d can't be read: %v", n, err)
			continue
		}
		newest = &r
		for _, f := range r.Added {
			name := hashOf(f.Name, addedName)
			if c.files[name] == nil {
				c.files[name] = sums{}
			}
			text, err := os.ReadFile(filepath.Join(dir, filepath.Base(f.Name)))
			if err != nil {
				continue // said by the check
			}
			added, err := readSums(bytes.NewReader(text))
			if err != nil {
				continue // the same
			}
			for path, sum := range added {
				c.files[name][path] = sum
			}
			for _, path := range r.Removed {
				delete(c.files[name], path)
			}
		}
	}
	if newest == nil {
		return c, nil
	}
	// The manifests of everything say the same in one piece; those that are
	// as the newest record has them are believed before the pieces.
	c.sinks = newest.Sinks
	for _, f := range newest.Manifests {
		text, err := os.ReadFile(filepath.Join(folder, filepath.Base(f.Name)))
		if err != nil || sumOf(text) != f.SHA256 {
			continue
		}
		all, err := readSums(bytes.NewReader(text))
		if err != nil {
			continue
		}
		name := hashOf(f.Name, manifestName)
		files, objects := c.files[name].split()
		if strings.HasPrefix(f.Name, manifestName+objectsName) {
			objects = all
		} else {
			files = all
		}
		c.files[name] = sums{}
		maps.Copy(c.files[name], files)
		maps.Copy(c.files[name], objects)
	}
	return c, nil
}

// Checked is what a check found.
type Checked struct {
	Records  int
	Files    int64
	Octets   int64
	Signers  []string // fingerprints
	Unsigned int
	Stamped  int
	First    time.Time // the first timestamp
	Unstated bool      // no signer was given to compare with
	Wrong    []string

	doubts map[int][]doubt // of each record
}

// doubt is a witness that says that a record isn't what it was; without a
// witness it is plain to see.
type doubt struct{ witness, text string }

// CheckOptions say what a check compares with.
type CheckOptions struct {
	Signer ssh.PublicKey // who must have signed; nil: whoever did

	// Store returns the socket of the store of objects. It is called only when
	// files are in a bucket.
	Store func() (string, error)
}

// Check says whether a custody folder still holds: each record's signature,
// timestamp and files, the chain of the records, and each exported file. The
// error says that it couldn't be checked.
func Check(ctx context.Context, folder string, o CheckOptions) (*Checked, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	chain, err := readChain(folder)
	if err != nil {
		return nil, err
	}
	if len(chain.folders) == 0 {
		return nil, fault.New(fault.Config, "there is no custody record in %s", folder).
			WithHint("a run writes one when its file has `custody: {path: …}`")
	}
	c := &Checked{Records: len(chain.folders), Unstated: o.Signer == nil, doubts: map[int][]doubt{}}
	var newest *Record
	for n, why := range chain.broken {
		c.doubts[n] = append(c.doubts[n], doubt{text: why})
	}
	for n := 1; n <= chain.last(); n++ {
		if !slices.Contains(chain.folders, n) {
			c.doubts[n] = append(c.doubts[n], doubt{text: fmt.Sprintf("record %d isn't there", n)})
		}
	}
	for _, n := range chain.folders {
		r := c.record(folder, n, o)
		if r == nil {
			continue
		}
		newest = r
		switch {
		case r.Previous == nil && n > 1:
			c.doubt(n, "its place", "record %d holds no hash of the one before it", n)
		case r.Previous != nil && chain.sums[r.Previous.Number] != r.Previous.SHA256:
			c.doubt(r.Previous.Number, fmt.Sprintf("record %d", n), "record %d isn't the one whose hash record %d holds", r.Previous.Number, n)
		}
	}
	if newest != nil {
		c.manifests(folder, newest)
	}
	c.settleDoubts()
	at := places{folder: folder, store: o.Store, sinks: chain.sinks}
	defer at.close()
	return c, c.hashAll(ctx, &at, chain)
}

func (c *Checked) doubt(n int, witness, format string, args ...any) {
	c.doubts[n] = append(c.doubts[n], doubt{witness, fmt.Sprintf(format, args...)})
}

// settleDoubts says once of each record what is wrong: where all witnesses
// doubt it the record was changed, else the witness was.
func (c *Checked) settleDoubts() {
	for n, doubts := range c.doubts {
		if plain := slices.IndexFunc(doubts, func(d doubt) bool { return d.witness == "" }); plain >= 0 || len(doubts) == 1 {
			c.wrong("%s", doubts[max(plain, 0)].text)
			continue
		}
		var names []string
		for _, d := range doubts {
			names = append(names, d.witness)
		}
		c.wrong("record %d isn't as it was: %s say so", n, strings.Join(names, " and "))
	}
}

func (c *Checked) wrong(format string, args ...any) {
	c.Wrong = append(c.Wrong, fmt.Sprintf(format, args...))
}

// record checks one record by itself.
func (c *Checked) record(folder string, n int, o CheckOptions) *Record {
	dir := filepath.Join(folder, folderName(n))
	b, err := os.ReadFile(filepath.Join(dir, RecordName))
	if err != nil {
		return nil // said by the chain
	}
	var r Record
	if json.Unmarshal(b, &r) != nil {
		return nil // so, too
	}
	if r.Number != n {
		c.wrong("record %d says that it is record %d", n, r.Number)
	}
	for _, f := range append(slices.Clone(r.Added), r.Config, r.Exceptions) {
		text, err := os.ReadFile(filepath.Join(dir, filepath.Base(f.Name)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			c.wrong("%s/%s isn't there", folderName(n), f.Name)
		case err != nil:
			c.wrong("%s/%s can't be read: %v", folderName(n), f.Name, err)
		case sumOf(text) != f.SHA256:
			c.wrong("%s/%s isn't as record %d has it", folderName(n), f.Name, n)
		}
	}
	c.signature(dir, n, b, o)
	c.timestamp(dir, n, b)
	return &r
}

func (c *Checked) signature(dir string, n int, record []byte, o CheckOptions) {
	sig, err := os.ReadFile(filepath.Join(dir, SignatureName))
	if errors.Is(err, fs.ErrNotExist) {
		c.Unsigned++
		if o.Signer != nil {
			c.wrong("record %d isn't signed", n)
		}
		return
	}
	if err != nil {
		c.wrong("the signature of record %d can't be read: %v", n, err)
		return
	}
	key, err := verifySignature(sig, record)
	if err != nil {
		c.doubt(n, "its signature", "the signature of record %d doesn't hold: %v", n, err)
		return
	}
	print := ssh.FingerprintSHA256(key)
	if !slices.Contains(c.Signers, print) {
		c.Signers = append(c.Signers, print)
	}
	if o.Signer != nil && !bytes.Equal(key.Marshal(), o.Signer.Marshal()) {
		c.wrong("record %d is signed by another key (%s)", n, print)
	}
}

func (c *Checked) timestamp(dir string, n int, record []byte) {
	answer, err := os.ReadFile(filepath.Join(dir, TimestampName))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		c.wrong("the timestamp of record %d can't be read: %v", n, err)
		return
	}
	got, err := verifyStamp(answer, record)
	if err != nil {
		c.doubt(n, "its timestamp", "the timestamp of record %d doesn't hold: %v", n, err)
		return
	}
	c.Stamped++
	if c.First.IsZero() || got.Time.Before(c.First) {
		c.First = got.Time.UTC()
	}
}

// manifests checks those of everything against the newest record.
func (c *Checked) manifests(folder string, r *Record) {
	for _, f := range r.Manifests {
		text, err := os.ReadFile(filepath.Join(folder, filepath.Base(f.Name)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			c.wrong("%s isn't there", f.Name)
		case err != nil:
			c.wrong("%s can't be read: %v", f.Name, err)
		case sumOf(text) != f.SHA256:
			c.wrong("%s isn't as record %d has it", f.Name, r.Number)
		}
	}
}

// hashAll reads every exported file again, some at once.
func (c *Checked) hashAll(ctx context.Context, at *places, chain *chain) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := chain.files["sha256"]
	names := make([]string, 0, len(all))
	for path := range all {
		names = append(names, path)
	}
	slices.Sort(names)
	others := []string{}
	for name := range chain.files {
		if name != "sha256" {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	jobs := make(chan string, 256)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range at.atOnce(2 * runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			buf := make([]byte, 256<<10)
			hashes := []hash.Hash{newHash("sha256")}
			for _, name := range others {
				hashes = append(hashes, newHash(name))
			}
			for path := range jobs {
				for _, h := range hashes {
					h.Reset()
				}
				size, err := at.hash(ctx, path, buf, hashes...)
				if lasting(err) {
					cancel(err)
				}
				if ctx.Err() != nil {
					continue
				}
				mu.Lock()
				c.Files++
				c.Octets += size
				switch {
				case errors.Is(err, fs.ErrNotExist):
					c.wrong("%s isn't there", path)
				case err != nil:
					c.wrong("%s can't be read: %v", path, err)
				case hexOf(hashes[0]) != all[path]:
					c.wrong("%s isn't what was exported", path)
				default:
					for i, name := range others {
						if want := chain.files[name][path]; want != "" && hexOf(hashes[i+1]) != want {
							c.wrong("%s has another %s than its manifest", path, name)
						}
					}
				}
				mu.Unlock()
			}
		})
	}
	for _, path := range names {
		if ctx.Err() != nil {
			break
		}
		jobs <- path
	}
	close(jobs)
	wg.Wait()
	slices.Sort(c.Wrong)
	return context.Cause(ctx)
}

// Line says in one line whether it all still holds.
func (c *Checked) Line() string {
	records := count(int64(c.Records), "record")
	if len(c.Wrong) > 0 {
		return fmt.Sprintf("custody is broken: %s in %s and %s", count(int64(len(c.Wrong)), "thing"), records, count(c.Files, "file"))
	}
	parts := []string{fmt.Sprintf("custody holds: %s, %s", records, count(c.Files, "file"))}
	switch {
	case len(c.Signers) > 0:
		text := "signed by " + strings.Join(c.Signers, ", ")
		if c.Unstated {
			text += " (not compared: --signer names the key to expect)"
		}
		if c.Unsigned > 0 {
			text += fmt.Sprintf(", %d not signed", c.Unsigned)
		}
		parts = append(parts, text)
	default:
		parts = append(parts, "not signed")
	}
	if c.Stamped > 0 {
		parts = append(parts, fmt.Sprintf("%s since %s", count(int64(c.Stamped), "timestamp"), c.First.Format(time.RFC3339)))
	}
	return strings.Join(parts, "; ")
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
