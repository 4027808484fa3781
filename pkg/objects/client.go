package objects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Bucket is a bucket as the store at a socket shows it. All methods are safe
// for concurrent use. What the store or the server can't do just now is tried
// again with growing pauses for as long as Patience; errors are of a class of
// package fault.
type Bucket struct {
	location Location
	http     *http.Client

	// Patience is how long a call goes on where the server is not to be
	// reached or asks to slow down: three minutes, or as the address says.
	Patience time.Duration
}

// patience is enough for a server that is restarted, and little enough for a
// run that somebody waits for.
const patience = 3 * time.Minute

// The pauses between two tries of a call: the first at most, the longest.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 20 * time.Second
)

// Errors of what a call asked for, to be told with errors.Is.
var (
	ErrMissing = errors.New("there is no such object")
	ErrThere   = errors.New("there is an object of that name")
	// ErrUnconditional: the server can't put an object only where there is none.
	ErrUnconditional = errors.New("the server knows no conditional writes")
	// ErrRefused: the server refuses an object. Whether it refuses all others
	// too, the next one shows.
	ErrRefused = errors.New("the server refuses the object")
	// ErrFailed: the server answers that it failed, whatever was asked. Whether
	// it does so with other objects, the next one shows.
	ErrFailed = errors.New("the server fails")
)

// Dial returns the bucket of a location, as the store that listens on the
// socket shows it. It calls nobody.
func Dial(socket string, l Location) (*Bucket, error) {
	if socket == "" {
		return nil, fault.New(fault.Config, "%s is in a store of objects, and this program was given none", l.Target).
			WithHint("update the pipeline command; or write to a folder").WithKey("path")
	}
	quiet := storeSilence
	if l.Silence > 0 {
		quiet = l.Silence
	}
	b := &Bucket{location: l, Patience: patience, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{Timeout: quiet}).DialContext(ctx, "unix", socket)
			if err != nil {
				return nil, err
			}
			return Moving(c, quiet), nil
		},
		MaxIdleConnsPerHost: 256, IdleConnTimeout: quiet / 2, DisableCompression: true,
		WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
	}}}
	if l.Patience > 0 {
		b.Patience = l.Patience
	}
	return b, nil
}

// Location returns the place that it was made with.
func (b *Bucket) Location() Location { return b.location }

// Close lets go of the connections.
func (b *Bucket) Close() { b.http.CloseIdleConnections() }

// PutOptions say how an object is put.
type PutOptions struct {
	New         bool              // only where there is none: ErrThere otherwise
	ContentType string            // empty: octets
	Meta        map[string]string // kept with the object
}

// Put stores size octets as the object of that name, whole or not at all, in
// place of what may be there. body may be read several times.
func (b *Bucket) Put(ctx context.Context, name string, body io.ReaderAt, size int64, o PutOptions) error {
	meta, err := json.Marshal(o.Meta)
	if err != nil {
		return fault.Wrap(fault.Bug, err, "put %s", name)
	}
	_, err = b.try(ctx, call{ //nolint:bodyclose // once did
		method: http.MethodPut, path: PathObject, name: name, what: "write",
		body: func() io.ReadCloser { return io.NopCloser(io.NewSectionReader(body, 0, size)) }, size: size,
		header: func(h http.Header) {
			h.Set("Content-Type", o.ContentType)
			if len(o.Meta) > 0 {
				h.Set(HeaderMeta, string(meta))
			}
			if o.New {
				h.Set("If-None-Match", "*")
			}
		},
	})
	return err
}

// Info is what is known of an object without its octets.
type Info struct {
	Size int64
	Meta map[string]string
}

// Stat looks at an object; ErrMissing when there is none.
func (b *Bucket) Stat(ctx context.Context, name string) (Info, error) {
	r, err := b.try(ctx, call{method: http.MethodHead, path: PathObject, name: name, what: "look at"}) //nolint:bodyclose // once did
	if err != nil {
		return Info{}, err
	}
	return info(r)
}

func info(r *http.Response) (Info, error) {
	i := Info{Size: r.ContentLength}
	if m := r.Header.Get(HeaderMeta); m != "" {
		if err := json.Unmarshal([]byte(m), &i.Meta); err != nil {
			return i, fault.Wrap(fault.Bug, err, "read what the store says of an object")
		}
	}
	return i, nil
}

// Open returns the octets of an object from an offset on; ErrMissing when
// there is none. What breaks off is taken up again where it broke off.
func (b *Bucket) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, Info, error) {
	r := &reader{ctx: ctx, b: b, name: name, at: offset}
	if err := r.open(); err != nil {
		return nil, Info{}, err
	}
	r.info.Size += offset
	return r, r.info, nil
}

// Content is Open for who wants nothing but the octets, and how many the whole
// object has: it takes one request of the server instead of two.
func (b *Bucket) Content(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	r := &reader{ctx: ctx, b: b, name: name, at: offset, bare: true}
	if err := r.open(); err != nil {
		return nil, 0, err
	}
	return r, r.info.Size + offset, nil
}

// Read returns a small object whole; ErrMissing when there is none.
func (b *Bucket) Read(ctx context.Context, name string) ([]byte, error) {
	const most = 64 << 20
	r, _, err := b.Content(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := io.ReadAll(io.LimitReader(r, most))
	return p, b.wrap(err, "read", name)
}

// Delete removes an object, when it is there.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	_, err := b.try(ctx, call{method: http.MethodDelete, path: PathObject, name: name, what: "delete"}) //nolint:bodyclose // once did
	return err
}

// Check asks whether the bucket is there and the objects of the place may be
// listed: more may not be allowed.
func (b *Bucket) Check(ctx context.Context) error {
	_, err := b.try(ctx, call{method: http.MethodGet, path: PathCheck, what: "look into", query: url.Values{"prefix": {b.location.Key("")}}}) //nolint:bodyclose // once did
	return err
}

// List returns the objects whose names begin with prefix, in the order of
// their names, which are relative to the place. With level, what is further
// down is told as one Dir whose name ends in "/". The error ends the sequence.
func (b *Bucket) List(ctx context.Context, prefix string, level bool) iter.Seq2[Listed, error] {
	q := url.Values{"prefix": {b.location.Key(prefix)}}
	if level {
		q.Set("delimiter", "/")
	}
	return b.pages(ctx, PathList, q)
}

// pages returns what a listing of several pages has.
func (b *Bucket) pages(ctx context.Context, path string, q url.Values) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		cut := len(b.location.Key(""))
		q.Del("token")
		for {
			r, err := b.try(ctx, call{method: http.MethodGet, path: path, query: q, what: "list", answer: true})
			if err != nil {
				yield(Listed{}, err)
				return
			}
			var page Page
			err = json.NewDecoder(r.Body).Decode(&page)
			r.Body.Close()
			if err != nil {
				yield(Listed{}, b.wrap(err, "list", q.Get("prefix")))
				return
			}
			for _, l := range page.Objects {
				l.Key = l.Key[min(cut, len(l.Key)):]
				if !yield(l, nil) {
					return
				}
			}
			if len(page.Next) == 0 {
				return
			}
			q.Set("token", string(page.Next))
		}
	}
}

// Unfinished returns the names of the objects that begin with prefix whose
// upload in parts was begun and neither ended nor given up, each as often as
// it was. Where a server has no such thing, or doesn't tell, there are none.
// The error ends the sequence.
func (b *Bucket) Unfinished(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for l, err := range b.pages(ctx, PathUploads, url.Values{"prefix": {b.location.Key(prefix)}}) {
			if !yield(l.Key, err) || err != nil {
				return
			}
		}
	}
}

// lost is the error of a call on which the store's process, not the server
// behind it, gave no answer.
func (b *Bucket) lost(err error, what, name string) error {
	if s := Silence(err); s > 0 {
		return fault.New(fault.Unavailable, "%s %s: the store of objects (the process pipeline-store-objects) has said nothing for %s: %w", what, b.place(name), s, err).
			WithHint("see whether that process is stopped, or the machine overloaded; run again: it goes on where it stopped")
	}
	return fault.New(fault.Unavailable, "%s %s: the store of objects (the process pipeline-store-objects) didn't answer: %w", what, b.place(name), err)
}

// wrap tells an error of a stream as one of the object that it was of.
func (b *Bucket) wrap(err error, what, name string) error {
	return fault.Wrap(fault.Unavailable, err, "%s %s in %s", what, name, b.location.Target)
}

// call is one call on the store.
type call struct {
	method, path, name, what string

	query  url.Values // besides the key
	body   func() io.ReadCloser
	size   int64
	header func(http.Header)
	answer bool // the body of the answer is wanted
}

// try calls until it is done, can't be done, or the patience is at its end.
func (b *Bucket) try(ctx context.Context, c call) (*http.Response, error) {
	begun := time.Now()
	for n := 0; ; n++ {
		r, err := b.once(ctx, c)
		if err == nil || ctx.Err() != nil {
			return r, err
		}
		f := fault.As(err)
		if f == nil || f.Class != fault.Unavailable && f.Class != fault.Throttled {
			return nil, err
		}
		pause := min(firstPause<<min(n, 10), longestPause)
		pause = max(pause/2+rand.N(pause/2), f.RetryAfter)
		if took := time.Since(begun); took+pause > b.Patience {
			return nil, exhausted(f, n+1, took)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// exhausted returns the error of the last of several tries.
func exhausted(f *fault.Error, tries int, took time.Duration) error {
	if tries == 1 {
		return f
	}
	w := *f
	w.Text = fmt.Sprintf("%s (tried %d times in %s)", f.Text, tries, took.Round(time.Second))
	w.Err = f
	return &w
}

// once calls one time. The body of an answer that isn't wanted is read and
// closed.
func (b *Bucket) once(ctx context.Context, c call) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "store", Path: c.path}
	q := c.query
	if q == nil {
		q = url.Values{}
	}
	if c.name != "" {
		q.Set("key", b.location.Key(c.name))
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, c.method, u.String(), nil)
	if err != nil {
		return nil, fault.Wrap(fault.Bug, err, "call the store")
	}
	req.Header.Set(HeaderBucket, b.location.Bucket)
	if c.header != nil {
		c.header(req.Header)
	}
	if c.body != nil {
		req.ContentLength, req.Body = c.size, c.body()
		if c.size == 0 {
			req.Body = http.NoBody
		}
	}
	r, err := b.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address of the socket
		}
		return nil, b.lost(err, c.what, c.name)
	}
	if r.StatusCode < http.StatusBadRequest {
		if !c.answer {
			_, _ = io.Copy(io.Discard, r.Body) // so that the connection can be used again
			r.Body.Close()
		}
		return r, nil
	}
	defer r.Body.Close()
	return nil, b.failure(c, r)
}

// failure returns the error that the store answered with.
func (b *Bucket) failure(c call, r *http.Response) error {
	f := Failure{Missing: r.StatusCode == http.StatusNotFound, There: r.StatusCode == http.StatusPreconditionFailed}
	if c.method != http.MethodHead { // which has no body
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
			return b.wrap(err, c.what, c.name)
		}
	} else if !f.Missing {
		if err := json.Unmarshal([]byte(r.Header.Get(HeaderFailure)), &f); err != nil {
			return b.wrap(err, c.what, c.name)
		}
	}
	switch {
	case f.Missing:
		return &fault.Error{Class: fault.Gone, Text: c.name + " isn't in " + b.location.Target, Err: ErrMissing}
	case f.There:
		return &fault.Error{Class: fault.Config, Text: c.name + " is in " + b.location.Target + " already", Err: ErrThere}
	}
	if f.Unconditional {
		return &fault.Error{Class: fault.Config, Text: f.Text, Err: ErrUnconditional}
	}
	e := fault.New(f.Class, "%s %s: %s", c.what, b.place(c.name), f.Text)
	e.Hint, e.Key, e.RetryAfter = f.Hint, f.Key, f.RetryAfter
	switch {
	case f.Refused:
		e.Err = ErrRefused
	case f.Failed:
		e.Err = ErrFailed
	}
	return e
}

func (b *Bucket) place(name string) string {
	if name == "" {
		return b.location.Target
	}
	return b.location.Target + "/" + name
}

// reader is an object's octets, taken up again where they broke off.
type reader struct {
	ctx   context.Context
	b     *Bucket
	name  string
	at    int64
	info  Info
	body  io.ReadCloser
	left  int64
	again int
	bare  bool // no metadata
}

// reopenings bounds how often one object is taken up again.
const reopenings = 5

func (r *reader) open() error {
	query := url.Values{"offset": {strconv.FormatInt(r.at, 10)}}
	if r.bare {
		query.Set("bare", "1")
	}
	res, err := r.b.try(r.ctx, call{ //nolint:bodyclose // Close does
		method: http.MethodGet, path: PathObject, name: r.name, what: "read", answer: true, query: query,
	})
	if err != nil {
		return err
	}
	r.body, r.left = res.Body, res.ContentLength
	r.info, err = info(res)
	return err
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.at += int64(n)
		r.left -= int64(n)
		if n > 0 || err == nil {
			return n, nil
		}
		if err == io.EOF && r.left == 0 {
			return 0, io.EOF
		}
		if r.again++; r.again > reopenings || r.ctx.Err() != nil {
			return 0, r.b.wrap(errors.Join(err, context.Cause(r.ctx)), "read", r.name)
		}
		r.body.Close()
		if err := r.open(); err != nil {
			return 0, err
		}
	}
}

// Close implements io.Closer.
func (r *reader) Close() error { return r.body.Close() }
