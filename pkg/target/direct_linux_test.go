package target

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Files keep their octets (I4) however large the pieces are that they come in,
// and wherever those lie in memory, past the page cache or through it.
func TestPiecesOfAllSizes(t *testing.T) {
	t.Parallel()
	const block, least = directBlock, directLeast
	tests := []struct {
		name   string
		pieces []int
		skip   int // octets from a multiple of a block to where a piece begins in memory
	}{
		{"small", []int{100}, 0},
		{"just too small", []int{least - 1}, 0},
		{"just large enough", []int{least}, 0},
		{"with a tail", []int{least + 1}, 0},
		{"a block less an octet", []int{least + block - 1}, 0},
		{"pieces of a frame", []int{256 << 10, 256 << 10, 256 << 10, 77}, 0},
		{"a large piece after a tail", []int{least + 5, 256 << 10}, 0},
		{"a header first", []int{16 << 10, 240 << 10, 256 << 10, 1000}, 0},
		{"a header that ends anywhere", []int{1234, 256 << 10, 256 << 10}, 0},
		{"a tail that ends a block", []int{least + 96, block - 96, 256 << 10}, 0},
		{"one piece, out of line", []int{1<<20 + 17}, 1},
		{"many, out of line", []int{256 << 10, 256 << 10, 5 << 10, 1 << 10, 256 << 10}, 4095},
		{"nothing in between", []int{256 << 10, 0, 256 << 10}, 8},
	}
	d, err := OpenDir(t.Context(), t.TempDir(), Owner{Sink: "s", Pipeline: "p"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("past the page cache: %v", d.disk.direct.on.Load())
	random := rand.NewChaCha8([32]byte{1})
	want := map[string][]byte{}
	for n, tt := range tests {
		f, err := d.Create()
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d.eml", n)
		for _, size := range tt.pieces {
			p := (*aligned(size + tt.skip))[tt.skip:]
			_, _ = random.Read(p)
			want[name] = append(want[name], p...)
			if got, err := f.Write(p); err != nil || got != size {
				t.Fatalf("%s: %d of %d octets written, %v", tt.name, got, size, err)
			}
		}
		if err := f.Place(message.ID{Source: "s", UID: uint32(n)}, name, time.Time{}); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
	}
	if _, err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for n, tt := range tests {
		name := fmt.Sprintf("%d.eml", n)
		if got, err := os.ReadFile(filepath.Join(d.root, name)); err != nil || !bytes.Equal(got, want[name]) {
			t.Errorf("%s: %d octets, %v; want the %d that were written", tt.name, len(got), err, len(want[name]))
		}
	}
}

// A file system that takes the flag and refuses the write, as one does whose
// device has larger blocks, costs one try. Here it refuses as the file isn't as
// long as it is said to be.
func TestRefusedDirectWrite(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	temp := filepath.Join(root, "tmp")
	if err := os.Mkdir(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := openDisk(root, temp)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.close() }()
	d.direct.on.Store(true)
	p := *aligned(directLeast + 10)
	for i := range p {
		p[i] = byte(i % 251)
	}
	for _, name := range []string{"a", "b"} {
		h, err := d.create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.write(&h, 0, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := d.write(&h, 0, p); err != nil {
			t.Fatal(err)
		}
		if err := d.place(h, name, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(got, append([]byte("x"), p...)) {
			t.Errorf("%s: %d octets, %v; want an x and %d", name, len(got), err, len(p))
		}
	}
}
