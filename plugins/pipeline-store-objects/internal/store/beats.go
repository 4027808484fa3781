package store

import (
	"maps"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// beats is the answer to a call. Until it begins, who called is told every
// few seconds that the store is still at it (102 Processing), and later what
// came of a body is sent as often: a server may be slow, and only that tells it
// from a store that hangs.
type beats struct {
	every  time.Duration
	header http.Header // until the answer begins: the beat's own has none of it

	mu    sync.Mutex // of w: the beat comes from a timer
	w     http.ResponseWriter
	begun bool // the answer
	ended bool
	timer *time.Timer
}

// begin begins to beat. end must be called before the handler returns.
func begin(w http.ResponseWriter, every time.Duration) *beats {
	b := &beats{every: every, header: http.Header{}, w: w}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = time.AfterFunc(every, b.beat)
	return b
}

func (b *beats) beat() {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended:
		return
	case b.begun:
		_ = http.NewResponseController(b.w).Flush() // the next Write tells whether anybody listens
	default:
		b.w.WriteHeader(http.StatusProcessing)
	}
	b.timer.Reset(b.every)
}

// end stops beating; an answer without a body has its header then.
func (b *beats) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginAnswer()
	b.ended = true
	b.timer.Stop()
}

// beginAnswer gives the answer its header. The lock is held.
func (b *beats) beginAnswer() {
	if !b.begun {
		b.begun = true
		maps.Copy(b.w.Header(), b.header)
	}
}

// Header implements http.ResponseWriter.
func (b *beats) Header() http.Header { return b.header }

// WriteHeader implements http.ResponseWriter.
func (b *beats) WriteHeader(status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginAnswer()
	b.w.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (b *beats) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginAnswer()
	return b.w.Write(p)
}

// silenceIn returns the silence that the address of a bucket allows; 0: it
// doesn't say.
func silenceIn(address string) time.Duration {
	u, err := url.Parse(address)
	if err != nil {
		return 0
	}
	return silenceOf(u)
}
