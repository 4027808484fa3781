// Package store answers the calls of package objects with the SDKs of the
// clouds.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"golang.org/x/sync/semaphore"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

const (
	// part is the size of the parts in which a big object is uploaded: S3
	// takes 10,000 of them.
	part = 8 << 20
	// partsAtOnce of one object.
	partsAtOnce = 2
	// whole is up to where an object is uploaded in one piece.
	whole = 2 * part
	// memory bounds what uploads hold at once (I5).
	memory = 128 << 20
)

// server answers calls.
type server struct {
	log    *slog.Logger
	memory *semaphore.Weighted

	mu      sync.Mutex
	buckets map[string]*opening // by address
}

// opening is a bucket, or how opening it failed.
type opening struct {
	once   sync.Once
	bucket *blob.Bucket
	err    error
}

// Serve answers calls on the listener until alive ends, which is when who
// started this process has: it ends the process then.
func Serve(ctx context.Context, l net.Listener, alive io.Reader, log *slog.Logger) error {
	go func() {
		_, _ = io.Copy(io.Discard, alive)
		os.Exit(0) // what is under way is nobody's any more
	}()
	spare := headroom()
	defer runtime.KeepAlive(spare)
	return (&http.Server{Handler: Handler(log), BaseContext: func(net.Listener) context.Context { return ctx }}).Serve(l)
}

// headroom is memory that is never touched, which has the collector run less
// often, as plugins have it: an upload leaves 100 KB of garbage, and where few
// are on their way at once little else is there. Without it a store with 8 of
// them at once took a quarter more CPU time than one with 64, for the same
// objects. It is the most that the process grows by (I5); where the user has set
// GOGC or GOMEMLIMIT there is none.
func headroom() []byte {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return make([]byte, 16<<20)
}

// Handler answers the calls of package objects.
func Handler(log *slog.Logger) http.Handler {
	s := &server{log: log, memory: semaphore.NewWeighted(memory), buckets: map[string]*opening{}}
	mux := http.NewServeMux()
	for pattern, f := range map[string]func(*blob.Bucket, http.ResponseWriter, *http.Request) error{
		"PUT " + objects.PathObject:    s.put,
		"GET " + objects.PathObject:    get,
		"HEAD " + objects.PathObject:   head,
		"DELETE " + objects.PathObject: remove,
		"GET " + objects.PathList:      list,
		"GET " + objects.PathUploads:   uploads,
		"GET " + objects.PathCheck:     check,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			address := r.Header.Get(objects.HeaderBucket)
			beats := begin(w, objects.Beat(silenceIn(address)))
			defer beats.end()
			b, err := s.bucket(address)
			if err == nil {
				err = f(b, beats, r)
			}
			if err != nil {
				_, _ = io.Copy(io.Discard, r.Body) // an answer before the body's end would be lost with the connection
				objects.WriteFailure(beats, failure(err))
			}
		})
	}
	return mux
}

// bucket opens the bucket of an address, once. What failed is tried again at
// the next call.
func (s *server) bucket(address string) (*blob.Bucket, error) {
	s.mu.Lock()
	o := s.buckets[address]
	if o == nil {
		o = &opening{}
		s.buckets[address] = o
	}
	s.mu.Unlock()
	o.once.Do(func() { o.bucket, o.err = open(address) })
	if o.err != nil {
		s.mu.Lock()
		if s.buckets[address] == o {
			delete(s.buckets, address)
		}
		s.mu.Unlock()
	}
	return o.bucket, o.err
}

func (s *server) put(b *blob.Bucket, w http.ResponseWriter, r *http.Request) error {
	ctx, key, size := r.Context(), r.URL.Query().Get("key"), r.ContentLength
	if key == "" || size < 0 {
		return fault.New(fault.Bug, "an object is put without its name or size")
	}
	o := &blob.WriterOptions{
		ContentType: r.Header.Get("Content-Type"), MaxConcurrency: partsAtOnce,
		BufferSize: int(min(max(size+1, part>>5), part)),
		IfNotExist: r.Header.Get("If-None-Match") == "*",
	}
	if o.ContentType == "" {
		o.ContentType = "application/octet-stream"
	}
	if m := r.Header.Get(objects.HeaderMeta); m != "" {
		if err := json.Unmarshal([]byte(m), &o.Metadata); err != nil {
			return fault.Wrap(fault.Bug, err, "read what is kept with an object")
		}
	}
	holds := min(2*size+int64(o.BufferSize), whole+(partsAtOnce+1)*part)
	if err := s.memory.Acquire(ctx, holds); err != nil {
		return err
	}
	defer s.memory.Release(holds)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := b.Upload(ctx, key, &unbroken{r.Body, cancel}, o)
	if o.IfNotExist && unconditional(err) {
		return s.putAlone(b, key, err)
	}
	return err
}

// unbroken is the body of an object. Where it breaks off, the upload is
// cancelled before the driver hears of it: Google's and the folder's make an
// object of what they have when they are only closed (I2).
type unbroken struct {
	io.Reader
	cancel context.CancelFunc
}

// Read implements io.Reader.
func (u *unbroken) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err != nil && err != io.EOF {
		u.cancel()
	}
	return n, err
}

// putAlone explains a server that has no conditional writes.
func (s *server) putAlone(_ *blob.Bucket, key string, err error) error {
	s.log.Warn("the server of the bucket knows no conditional writes: that nobody else writes there at this moment can't be proved", "key", key, "answer", err.Error())
	return errNoCondition
}

func get(b *blob.Bucket, w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	offset, err := strconv.ParseInt("0"+q.Get("offset"), 10, 64)
	if err != nil {
		return fault.Wrap(fault.Bug, err, "read the offset")
	}
	if q.Get("bare") != "" {
		return content(b, w, r, offset)
	}
	a, err := b.Attributes(r.Context(), q.Get("key"))
	if err != nil {
		return err
	}
	describe(w, a, a.Size-offset)
	if a.Size-offset <= 0 {
		return nil
	}
	in, err := b.NewRangeReader(r.Context(), q.Get("key"), offset, -1, nil)
	if err != nil {
		w.Header().Del("Content-Length")
		return err
	}
	defer in.Close()
	if _, err := io.Copy(w, in); err != nil {
		panic(http.ErrAbortHandler) // the reader sees that it ends too early, and takes it up again
	}
	return nil
}

// content answers with the octets alone, which takes one request of the server.
func content(b *blob.Bucket, w http.ResponseWriter, r *http.Request, offset int64) error {
	in, err := b.NewRangeReader(r.Context(), r.URL.Query().Get("key"), offset, -1, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	w.Header().Set("Content-Length", strconv.FormatInt(in.Size()-offset, 10))
	if _, err := io.Copy(w, in); err != nil {
		panic(http.ErrAbortHandler) // as in get
	}
	return nil
}

func head(b *blob.Bucket, w http.ResponseWriter, r *http.Request) error {
	a, err := b.Attributes(r.Context(), r.URL.Query().Get("key"))
	if err == nil {
		describe(w, a, a.Size)
	}
	return err
}

func describe(w http.ResponseWriter, a *blob.Attributes, length int64) {
	if len(a.Metadata) > 0 {
		m, err := json.Marshal(a.Metadata)
		if err == nil {
			w.Header().Set(objects.HeaderMeta, string(m))
		}
	}
	w.Header().Set("Content-Length", strconv.FormatInt(max(length, 0), 10))
}

func remove(b *blob.Bucket, w http.ResponseWriter, r *http.Request) error {
	err := b.Delete(r.Context(), r.URL.Query().Get("key"))
	if gcerrors.Code(err) == gcerrors.NotFound && !noBucket(err) {
		return nil
	}
	return err
}

// perPage is how many objects a page of a listing has: as many as S3 gives.
const perPage = 1000

func list(b *blob.Bucket, w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	token := blob.FirstPageToken
	if t := q.Get("token"); t != "" {
		token = []byte(t)
	}
	found, next, err := b.ListPage(r.Context(), token, perPage, &blob.ListOptions{Prefix: q.Get("prefix"), Delimiter: q.Get("delimiter")})
	if err != nil {
		return listing(err)
	}
	page := objects.Page{Next: next, Objects: make([]objects.Listed, 0, len(found))}
	for _, o := range found {
		page.Objects = append(page.Objects, objects.Listed{Key: o.Key, Size: o.Size, Dir: o.IsDir})
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(page)
}

func check(b *blob.Bucket, _ http.ResponseWriter, r *http.Request) error {
	_, _, err := b.ListPage(r.Context(), blob.FirstPageToken, 1, &blob.ListOptions{Prefix: r.URL.Query().Get("prefix")})
	return listing(err)
}

// errListing is that a file of a folder that is used as a bucket went away
// while it was listed: the next try sees the rest.
var errListing = errors.New("the folder changed while it was listed")

func listing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errListing
	}
	return err
}

var errNoCondition = errors.New("the server of the bucket knows no conditional writes")
