package relay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

func octets(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestEveryReaderGetsAllOctets(t *testing.T) {
	t.Parallel()
	var chunks Chunks // of all bodies
	for name, tc := range map[string]struct {
		size    int
		readers int
		slow    time.Duration // of the last reader, for each read
		spilled bool
	}{
		"empty":                 {size: 0, readers: 2},
		"one octet":             {size: 1, readers: 1},
		"just a chunk":          {size: chunkSize, readers: 2},
		"a window and more":     {size: (windowMax + 3) * chunkSize, readers: 3},
		"slow, within patience": {size: (windowMax + 3) * chunkSize, readers: 2, slow: time.Microsecond},
		"slow, beyond patience": {size: (windowMax+8)*chunkSize + 5, readers: 2, spilled: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := octets(tc.size)
			patience := Patience
			if tc.spilled {
				patience = 5 * time.Millisecond
			}
			spool := &message.Spool{Dir: t.TempDir()}
			r := New(tc.readers, &chunks, spool, patience)
			got := make([]bytes.Buffer, tc.readers)
			// Whoever is beyond patience reads nothing before it has ended.
			spilling := make(chan struct{})
			if !tc.spilled {
				close(spilling)
			}
			var wg sync.WaitGroup
			for i, rd := range r.Readers() {
				wg.Go(func() {
					if i == tc.readers-1 {
						<-spilling
					}
					buf := make([]byte, 100_000)
					for {
						if i == tc.readers-1 {
							time.Sleep(tc.slow)
						}
						n, err := rd.Read(buf)
						got[i].Write(buf[:n])
						if err == io.EOF {
							return
						}
						if err != nil {
							t.Errorf("reader %d: %v", i, err)
							return
						}
					}
				})
			}
			var seen bytes.Buffer
			if err := r.Pump(bytes.NewReader(want), func(b []byte) {
				if at := seen.Len() / chunkSize; tc.spilled && at == windowMax+1 {
					close(spilling) // the chunk before this one found no room
				}
				seen.Write(b)
			}); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			if spilled := r.file != nil; spilled != tc.spilled {
				t.Errorf("spilled to a file: %v, want %v", spilled, tc.spilled)
			}
			r.Close()
			for i := range got {
				if !bytes.Equal(got[i].Bytes(), want) {
					t.Errorf("reader %d got %d octets that differ from the %d sent", i, got[i].Len(), len(want))
				}
			}
			if !bytes.Equal(seen.Bytes(), want) {
				t.Error("see got other octets")
			}
		})
	}
}

// A body that was cut short must never look whole to a reader (I1).
func TestTheSourcesErrorReachesReaders(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]error{"unexpected EOF": io.ErrUnexpectedEOF, "other": errors.New("reset by peer")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(1, &Chunks{}, nil, Patience)
			got := make(chan error)
			go func() {
				_, err := io.Copy(io.Discard, r.Readers()[0])
				got <- err
			}()
			src := io.MultiReader(bytes.NewReader(octets(300_000)), iotest.ErrReader(cut))
			if err := r.Pump(src, func([]byte) {}); !errors.Is(err, cut) {
				t.Errorf("Pump: %v, want %v", err, cut)
			}
			if err := <-got; !errors.Is(err, cut) {
				t.Errorf("the reader saw %v, want %v", err, cut)
			}
			r.Close()
		})
	}
}

func TestAClosedReaderHoldsNothingBack(t *testing.T) {
	t.Parallel()
	r := New(1, &Chunks{}, nil, time.Hour)
	r.Readers()[0].Close()
	if err := r.Pump(bytes.NewReader(octets((windowMax+5)*chunkSize)), func([]byte) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Readers()[0].Read(make([]byte, 1)); !errors.Is(err, ErrAbandoned) {
		t.Errorf("read after Close: %v, want %v", err, ErrAbandoned)
	}
}

func TestAFullSpoolStopsTheRelay(t *testing.T) {
	t.Parallel()
	r := New(1, &Chunks{}, &message.Spool{Dir: t.TempDir(), Budget: chunkSize}, time.Millisecond)
	err := r.Pump(bytes.NewReader(octets((windowMax+5)*chunkSize)), func([]byte) {})
	if err == nil {
		t.Fatal("a spool over its budget was not refused")
	}
	r.Close()
}
