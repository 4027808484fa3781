package cfb_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/richardlehane/mscfb"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/cfb"
)

// read returns path -> octets as another reader sees them; a storage ends in /.
func read(t *testing.T, file io.ReaderAt) map[string]string {
	t.Helper()
	doc, err := mscfb.New(file)
	if err != nil {
		t.Fatalf("mscfb refuses the file: %v", err)
	}
	out := map[string]string{}
	for e, err := doc.Next(); err == nil; e, err = doc.Next() {
		path := strings.Join(append(append([]string{}, e.Path...), e.Name), "/")
		if e.FileInfo().IsDir() {
			out[path+"/"] = ""
			continue
		}
		sum, n := sha256.New(), int64(0)
		buf := make([]byte, 32<<10)
		for n < e.Size {
			k, err := e.Read(buf)
			sum.Write(buf[:k])
			n += int64(k)
			if err != nil {
				break
			}
		}
		out[path] = fmt.Sprintf("%d %x", n, sum.Sum(nil))
	}
	return out
}

func want(data []byte) string { return fmt.Sprintf("%d %x", len(data), sha256.Sum256(data)) }

func pattern(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + seed)
	}
	return b
}

func TestStreamsReadBack(t *testing.T) {
	t.Parallel()
	// Sizes around every edge: empty, mini sectors, the cut-off, sectors, and
	// FAT sizes with and without a DIFAT (109 FAT sectors end near 6.8 MiB).
	cases := map[string][]int{
		"nothing":              {},
		"one empty":            {0},
		"one octet":            {1},
		"mini sectors":         {63, 64, 65, 127, 128},
		"cut-off":              {4095, 4096, 4097},
		"many minis":           {300, 1, 4000, 77, 0, 4095, 64, 2048},
		"mixed":                {10, 5000, 0, 511, 100000, 64},
		"last without DIFAT":   {6_700_000},
		"first with DIFAT":     {7_300_000},
		"just around 109 FATs": {7_080_000, 30_000},
		"three DIFAT sectors":  {25_000_000},
	}
	for name, sizes := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := cfb.New()
			expect := map[string]string{}
			for i, n := range sizes {
				data, stream := pattern(n, i), fmt.Sprintf("stream %d", i)
				expect[stream] = want(data)
				if i%2 == 0 {
					f.AddStream(cfb.Root, stream, data)
				} else {
					f.AddStreamFunc(cfb.Root, stream, int64(n), func(w io.Writer) error {
						_, err := io.Copy(w, bytes.NewReader(data))
						return err
					})
				}
			}
			size, err := f.Size()
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			n, err := f.WriteTo(&out)
			if err != nil || n != size || int64(out.Len()) != size {
				t.Fatalf("WriteTo: %d octets, %v; Size said %d, came %d", n, err, size, out.Len())
			}
			if n%512 != 0 {
				t.Errorf("%d octets are no whole sectors", n)
			}
			got := read(t, bytes.NewReader(out.Bytes()))
			for path, w := range expect {
				if got[path] != w {
					t.Errorf("%s: got %q, want %q", path, got[path], w)
				}
			}
			if len(got) != len(expect) {
				t.Errorf("%d elements, want %d", len(got), len(expect))
			}
		})
	}
}

func TestNestedStorages(t *testing.T) {
	t.Parallel()
	f := cfb.New()
	s, expect := cfb.Root, map[string]string{}
	path := ""
	for depth := range 40 {
		for i := range depth % 9 {
			data := pattern(100*i+depth, i)
			f.AddStream(s, fmt.Sprintf("z%02d", 9-i), data)
			expect[path+fmt.Sprintf("z%02d", 9-i)] = want(data)
		}
		name := fmt.Sprintf("level-%d", depth)
		s = f.AddStorage(s, name)
		path += name + "/"
		expect[path] = ""
	}
	var out bytes.Buffer
	if _, err := f.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	got := read(t, bytes.NewReader(out.Bytes()))
	for p, w := range expect {
		if g, ok := got[p]; !ok || g != w {
			t.Errorf("%s: got %q, want %q", p, g, w)
		}
	}
}

// TestSiblingTree checks what most readers don't: the order that Windows
// searches by, and the colours (MS-CFB §2.6.4).
func TestSiblingTree(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 4, 7, 8, 15, 16, 100, 2049} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			f := cfb.New()
			for i := range n {
				// Lengths and cases mixed, in an order that isn't theirs.
				name := fmt.Sprintf("%x", i*7919%n)
				if i%2 == 1 {
					name = strings.ToUpper(name)
				}
				f.AddStream(cfb.Root, "É"+name, nil)
			}
			var out bytes.Buffer
			if _, err := f.WriteTo(&out); err != nil {
				t.Fatal(err)
			}
			b := out.Bytes()
			dir := b[512*(1+int(binary.LittleEndian.Uint32(b[48:]))):]
			var names []string
			var walk func(i uint32, parentRed bool) int
			walk = func(i uint32, parentRed bool) int {
				if i == 0xFFFFFFFF {
					return 1
				}
				e := dir[128*i:][:128]
				red := e[67] == 0
				if red && parentRed {
					t.Error("two reds in a row")
				}
				l := walk(binary.LittleEndian.Uint32(e[68:]), red)
				u := int(binary.LittleEndian.Uint16(e[64:]))/2 - 1
				name := make([]rune, u)
				for k := range name {
					name[k] = rune(binary.LittleEndian.Uint16(e[2*k:]))
				}
				names = append(names, string(name))
				if r := walk(binary.LittleEndian.Uint32(e[72:]), red); r != l {
					t.Errorf("black heights %d and %d under %q", l, r, string(name))
				}
				if !red {
					l++
				}
				return l
			}
			top := binary.LittleEndian.Uint32(dir[76:])
			if dir[128*top+67] != 1 {
				t.Error("the top of the tree is red")
			}
			walk(top, false)
			if len(names) != n {
				t.Fatalf("%d names in the tree, want %d", len(names), n)
			}
			for i := 1; i < n; i++ {
				a, b := strings.ToUpper(names[i-1]), strings.ToUpper(names[i])
				if len(a) > len(b) || len(a) == len(b) && a >= b {
					t.Errorf("%q stands before %q", a, b)
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	nothing := func(io.Writer) error { return nil }
	broken := errors.New("the source broke")
	cases := map[string]struct {
		make func(f *cfb.File)
		want string
	}{
		"long name":      {func(f *cfb.File) { f.AddStream(cfb.Root, strings.Repeat("x", 32), nil) }, "longer than 31"},
		"no name":        {func(f *cfb.File) { f.AddStream(cfb.Root, "", nil) }, "no name"},
		"forbidden name": {func(f *cfb.File) { f.AddStorage(cfb.Root, "a/b") }, "forbidden"},
		"twice":          {func(f *cfb.File) { f.AddStream(cfb.Root, "AB", nil); f.AddStorage(cfb.Root, "ab") }, "same name"},
		"short source":   {func(f *cfb.File) { f.AddStreamFunc(cfb.Root, "s", 5000, nothing) }, "5000 octets were announced, 0 came"},
		"broken source": {func(f *cfb.File) {
			f.AddStreamFunc(cfb.Root, "s", 5, func(io.Writer) error { return broken })
		}, "the source broke"},
		"one stream over 2 GiB": {func(f *cfb.File) { f.AddStreamFunc(cfb.Root, "s", 1<<31, nothing) }, "2 GiB"},
		"all over 2 GiB": {func(f *cfb.File) {
			f.AddStreamFunc(cfb.Root, "a", 1<<30, nothing)
			f.AddStreamFunc(cfb.Root, "b", 1<<30, nothing)
		}, "2 GiB"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := cfb.New()
			c.make(f)
			var out bytes.Buffer
			_, err := f.WriteTo(&out)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			if errors.Is(err, cfb.ErrTooLarge) && out.Len() > 0 {
				t.Error("octets were written before the refusal")
			}
		})
	}
}

type full struct{ room int }

func (w *full) Write(p []byte) (int, error) {
	if w.room -= len(p); w.room < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestWriterErrorComesBack(t *testing.T) {
	t.Parallel()
	f := cfb.New()
	f.AddStream(cfb.Root, "s", pattern(1<<20, 1))
	if _, err := f.WriteTo(&full{room: 100_000}); !errors.Is(err, io.ErrShortWrite) {
		t.Fatalf("error %v", err)
	}
}

func TestResetGivesTheSameFile(t *testing.T) {
	t.Parallel()
	f := cfb.New()
	var first bytes.Buffer
	for round := range 3 {
		f.Reset()
		f.SetClass(cfb.Root, [16]byte{1, 2, 3})
		s := f.AddStorage(cfb.Root, "storage")
		f.AddStream(s, "big", pattern(9000, 1))
		f.AddStream(cfb.Root, "small", pattern(90, 1))
		var out bytes.Buffer
		if _, err := f.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			first = out
		} else if !bytes.Equal(first.Bytes(), out.Bytes()) {
			t.Fatal("the same tree gave other octets")
		}
	}
}

func BenchmarkHundredStreams(b *testing.B) {
	f, data := cfb.New(), pattern(200, 1)
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprintf("__substg1.0_%08X", i*0x10001)
	}
	b.ReportAllocs()
	for b.Loop() {
		f.Reset()
		for _, n := range names {
			f.AddStream(cfb.Root, n, data)
		}
		if _, err := f.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBigStream(b *testing.B) {
	f, data := cfb.New(), pattern(1<<20, 1)
	b.SetBytes(100 << 20)
	for b.Loop() {
		f.Reset()
		f.AddStreamFunc(cfb.Root, "big", 100<<20, func(w io.Writer) error {
			for range 100 {
				if _, err := w.Write(data); err != nil {
					return err
				}
			}
			return nil
		})
		if _, err := f.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
