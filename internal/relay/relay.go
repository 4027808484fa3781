// Package relay passes one body to several readers at once, in bounded memory.
// A reader that stalls the source for too long no longer does: what it hasn't
// read yet goes to an unlinked spool file, so that no slow sink ever holds a
// server's literal open (DESIGN: bodies).
package relay

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Sizes of the window between source and readers.
const (
	chunkSize = 256 << 10
	windowMax = 16 // chunks: 4 MiB
)

// Patience is how long the slowest reader may stall the source.
const Patience = 2 * time.Second

// ErrAbandoned is what a reader gets when the relay was given up.
var ErrAbandoned = errors.New("the message was given up")

// Chunks is memory for the pieces of bodies, used again from one body to the next.
// The zero value is ready, and safe for concurrent use. Each large body else left
// up to 4 MiB to the garbage collector, which ran for that more than for all else.
type Chunks struct{ free sync.Pool }

func (c *Chunks) get() []byte {
	if p, ok := c.free.Get().(*[chunkSize]byte); ok {
		return p[:]
	}
	return make([]byte, chunkSize)
}

func (c *Chunks) put(chunk []byte) { c.free.Put((*[chunkSize]byte)(chunk[:chunkSize])) }

// Relay is one body on its way. Pump runs in one goroutine, each reader in one
// of its own.
type Relay struct {
	chunks   *Chunks
	spool    *message.Spool
	patience time.Duration

	mu      sync.Mutex
	moved   sync.Cond
	base    int64    // offset of the first chunk in the window
	window  [][]byte // what is in memory; all chunks but the last are full
	end     int64    // octets that came
	err     error    // why no more will come: io.EOF or the source's error
	file    *os.File // holds [0, base) once spilling
	spilled int64    // octets in the file
	free    [][]byte // chunks that every reader has read, to be filled again
	readers []*Reader
}

// New returns a relay for n readers, with memory of chunks.
func New(n int, chunks *Chunks, spool *message.Spool, patience time.Duration) *Relay {
	r := &Relay{chunks: chunks, spool: spool, patience: patience}
	r.moved.L = &r.mu
	for range n {
		r.readers = append(r.readers, &Reader{r: r})
	}
	return r
}

// Readers returns the readers.
func (r *Relay) Readers() []*Reader { return r.readers }

// Pump reads src to its end and calls see with each piece, in order; what see
// keeps it must copy. It returns nil at src's end, src's error, or the
// spool's. All readers see the same end.
func (r *Relay) Pump(src io.Reader, see func([]byte)) error {
	for {
		chunk := r.chunk()
		n, err := fill(src, chunk)
		if n > 0 {
			see(chunk[:n])
			if serr := r.push(chunk[:n]); serr != nil {
				err = serr
			}
		} else {
			r.chunks.put(chunk)
		}
		if err != nil {
			r.finish(err)
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// chunk returns memory for the next piece.
func (r *Relay) chunk() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trim()
	if n := len(r.free); n > 0 {
		c := r.free[n-1]
		r.free = r.free[:n-1]
		return c
	}
	return r.chunks.get()
}

// fill reads until chunk is full or src ends. It is not io.ReadFull, which
// would make io.ErrUnexpectedEOF of a proper end.
func fill(src io.Reader, chunk []byte) (int, error) {
	n := 0
	for n < len(chunk) {
		m, err := src.Read(chunk[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (r *Relay) finish(err error) {
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
	r.moved.Broadcast()
}

func (r *Relay) push(chunk []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trim()
	if len(r.window) >= windowMax && r.file == nil {
		r.wait()
	}
	if len(r.window) >= windowMax {
		if err := r.spill(); err != nil {
			return err
		}
	}
	r.window = append(r.window, chunk)
	r.end += int64(len(chunk))
	r.moved.Broadcast()
	return nil
}

// trim forgets the chunks that every reader has read, and what the file holds
// of them no longer matters either.
func (r *Relay) trim() {
	low := r.end
	for _, rd := range r.readers {
		if !rd.closed {
			low = min(low, rd.at)
		}
	}
	for len(r.window) > 0 && r.base+int64(len(r.window[0])) <= low && r.file == nil {
		r.drop()
	}
}

// drop takes the first chunk out of the window. Nobody holds it: readers copy
// out of it under the lock.
func (r *Relay) drop() {
	chunk := r.window[0]
	r.base += int64(len(chunk))
	r.window = r.window[1:]
	r.free = append(r.free, chunk[:cap(chunk)])
}

// wait gives the readers their time to make room in the window.
func (r *Relay) wait() {
	deadline := time.Now().Add(r.patience)
	// A moment after the deadline: the one wake-up must not come before it.
	timer := time.AfterFunc(time.Until(deadline)+time.Millisecond, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.moved.Broadcast()
	})
	defer timer.Stop()
	for ; len(r.window) >= windowMax && time.Now().Before(deadline); r.trim() {
		r.moved.Wait()
	}
}

// spill moves the first chunk of the window to the file. From the first spill
// on, everything before base is read from the file at its own offset.
func (r *Relay) spill() error {
	if r.file == nil {
		f, err := r.spool.File()
		if err != nil {
			return err
		}
		r.file = f
	}
	chunk := r.window[0]
	if err := r.spool.Take(int64(len(chunk))); err != nil {
		return err
	}
	r.spilled += int64(len(chunk))
	if _, err := r.file.WriteAt(chunk, r.base); err != nil {
		return message.SpoolError(err)
	}
	r.drop()
	return nil
}

// Close gives back memory and spool file. Call it when Pump and all readers are
// done.
func (r *Relay) Close() {
	for _, chunk := range append(r.window, r.free...) {
		r.chunks.put(chunk)
	}
	r.window, r.free = nil, nil
	if r.file != nil {
		r.file.Close()
		r.spool.Give(r.spilled)
	}
}

// Reader is one reader's end.
type Reader struct {
	r      *Relay
	at     int64
	closed bool
}

// Read implements io.Reader.
func (rd *Reader) Read(p []byte) (int, error) {
	r := rd.r
	r.mu.Lock()
	defer r.mu.Unlock()
	for rd.at == r.end && r.err == nil && !rd.closed {
		r.moved.Wait()
	}
	if rd.closed {
		return 0, ErrAbandoned
	}
	if rd.at == r.end {
		return 0, r.err
	}
	if rd.at < r.base {
		n := min(int64(len(p)), r.base-rd.at)
		// The file only grows, and nothing below base changes any more: it
		// is read without the lock, so that the others go on.
		at, f := rd.at, r.file
		r.mu.Unlock()
		m, err := f.ReadAt(p[:n], at)
		r.mu.Lock()
		if m == 0 && err != nil {
			return 0, message.SpoolError(err)
		}
		rd.advance(m)
		return m, nil
	}
	chunk := r.window[(rd.at-r.base)/chunkSize]
	n := copy(p, chunk[(rd.at-r.base)%chunkSize:])
	rd.advance(n)
	return n, nil
}

func (rd *Reader) advance(n int) {
	rd.at += int64(n)
	rd.r.moved.Broadcast()
}

// Close gives the reader up: it no longer holds anything back.
func (rd *Reader) Close() {
	rd.r.mu.Lock()
	rd.closed = true
	rd.r.mu.Unlock()
	rd.r.moved.Broadcast()
}
