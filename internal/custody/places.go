package custody

import (
	"context"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/mailhaul/pipeline/internal/output"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

// places is where the files of manifests are: below a custody folder, and in
// the buckets of sinks. It is safe for concurrent use.
type places struct {
	folder string // of the custody, absolute
	store  func() (string, error)
	sinks  []Sink // those with an Address are in buckets

	mu   sync.Mutex
	open map[string]place // of a bucket, by its target
}

// place reads a file by its name within a target; "" is the target itself.
type place struct {
	open  func(ctx context.Context, name string) (io.ReadCloser, int64, error)
	close func()
}

// inBucket reports whether a name of a manifest is an object's.
func inBucket(name string) bool { return target.IsAddress(name) }

// atOnce is how many files are read at once.
func (p *places) atOnce(workers int) int {
	for _, s := range p.sinks {
		if s.Address != "" {
			return max(workers, 64) // that hides the round trips
		}
	}
	return workers
}

func (p *places) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.open {
		at.close()
	}
}

// at returns the bucket that an object is in, and the rest of its name.
func (p *places) at(ctx context.Context, name string) (place, string, error) {
	for _, s := range p.sinks {
		rest, ok := strings.CutPrefix(name, s.Target)
		if s.Address == "" || !ok || rest != "" && rest[0] != '/' {
			continue
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		at, ok := p.open[s.Target]
		if !ok {
			var err error
			if at, err = p.reach(ctx, &s, rest == ""); err != nil {
				return at, "", err
			}
			if p.open == nil {
				p.open = map[string]place{}
			}
			p.open[s.Target] = at
		}
		return at, strings.TrimPrefix(rest, "/"), nil
	}
	return place{}, "", fs.ErrNotExist // no sink writes there any more
}

func (p *places) reach(ctx context.Context, s *Sink, object bool) (place, error) {
	if object {
		x, err := output.OpenIndex(ctx, s.Address, p.store)
		if err != nil {
			return place{}, err
		}
		return place{func(ctx context.Context, _ string) (io.ReadCloser, int64, error) { return x.Open(ctx) }, x.Close}, nil
	}
	f, err := output.Open(ctx, s.Target, s.Address, p.store)
	if err != nil {
		return place{}, err
	}
	return place{f.Open, f.Close}, nil
}

// hash reads a file once for several hashes, and returns its size.
func (p *places) hash(ctx context.Context, name string, buf []byte, hashes ...hash.Hash) (int64, error) {
	if !inBucket(name) {
		f, err := os.Open(filepath.Join(p.folder, filepath.FromSlash(name)))
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return hashAll(f, buf, hashes...)
	}
	at, rest, err := p.at(ctx, name)
	if err != nil {
		return 0, err
	}
	in, _, err := at.open(ctx, rest)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	return hashAll(in, buf, hashes...)
}

// lasting reports whether an error is not of one file: its server's, or the
// store's.
func lasting(err error) bool {
	return fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Throttled) || fault.Is(err, fault.Auth)
}
