package rtf_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/rtf"
)

// TestExampleOfTheSpecification is MS-OXRTFCP §4.1.1 and §4.1.2.
func TestExampleOfTheSpecification(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, packed, text string }{
		{"simple", "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0",
			"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"},
		{"beyond the write position", "1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0", "{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			packed, err := hex.DecodeString(c.packed)
			if err != nil {
				t.Fatal(err)
			}
			got, err := rtf.Decompress(packed, 1000)
			if err != nil || string(got) != c.text {
				t.Errorf("read %q, %v", got, err)
			}
			if again := rtf.Compress([]byte(c.text)); len(again) > len(packed)+1 {
				t.Errorf("%d octets are written, the specification has %d: % x", len(again), len(packed), again)
			}
		})
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 20_000)
	for i := range noise {
		noise[i] = byte(r.IntN(256))
	}
	cases := map[string][]byte{
		"empty": nil, "one": []byte("x"), "two": []byte("xy"), "same": bytes.Repeat([]byte("a"), 100_000),
		"noise": noise, "like the dictionary": []byte(`{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}`),
		"text":             []byte(strings.Repeat("A line of text, again and again. ", 3000)),
		"period of window": bytes.Repeat(noise[:4096], 3), "beyond window": bytes.Repeat(noise[:4099], 3),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := rtf.Decompress(rtf.Compress(text), 1<<20)
			if err != nil || !bytes.Equal(got, text) {
				t.Errorf("%d octets came back as %d, %v", len(text), len(got), err)
			}
		})
	}
}

func TestCorrupt(t *testing.T) {
	t.Parallel()
	good := rtf.Compress([]byte("{\\rtf1 some text that is long enough}"))
	cases := map[string]func(b []byte) []byte{
		"nothing":    func([]byte) []byte { return nil },
		"cut":        func(b []byte) []byte { return b[:len(b)-3] },
		"checksum":   func(b []byte) []byte { b[20] ^= 1; return b },
		"magic":      func(b []byte) []byte { b[8] ^= 1; return b },
		"size":       func(b []byte) []byte { b[4]++; return b },
		"over limit": func(b []byte) []byte { b[7] = 0x7F; return b },
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := rtf.Decompress(damage(bytes.Clone(good)), 1<<20); !errors.Is(err, rtf.ErrCorrupt) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// unpack takes the HTML out again, as MS-OXRTFEX §3.2 says: what stands in
// htmltag groups, and text outside of htmlrtf.
func unpack(t *testing.T, b []byte) string {
	t.Helper()
	s := string(b)
	start := strings.Index(s, `\fs24 `)
	if start < 0 {
		t.Fatal("no header")
	}
	s = strings.TrimSuffix(s[start+len(`\fs24 `):], "}")
	var out strings.Builder
	suppressed := false
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], `{\*\htmltag`):
			end := i + 1
			for depth := 1; depth > 0; end++ {
				switch s[end] {
				case '\\':
					end++
				case '{':
					depth++
				case '}':
					depth--
				}
			}
			inner := s[i+len(`{\*\htmltag`) : end-1]
			_, inner, _ = strings.Cut(inner, " ")
			out.WriteString(rtf.Text([]byte(inner)))
			i = end
		case strings.HasPrefix(s[i:], `\htmlrtf0 `):
			suppressed = false
			i += len(`\htmlrtf0 `)
		case strings.HasPrefix(s[i:], `\htmlrtf `):
			suppressed = true
			i += len(`\htmlrtf `)
		default:
			end := i + 1
			if s[i] == '\\' && end < len(s) {
				end++
			}
			for end < len(s) && s[end] != '{' && s[end] != '}' && !strings.HasPrefix(s[end:], `\htmlrtf`) {
				if s[end] == '\\' {
					end++
				}
				end++
			}
			if !suppressed {
				out.WriteString(rtf.Text([]byte(s[i:min(end, len(s))])))
			}
			i = min(end, len(s))
		}
	}
	return out.String()
}

func TestEncapsulatedHTMLComesBack(t *testing.T) {
	t.Parallel()
	cases := []string{
		"<p>text</p>",
		"<!DOCTYPE html>\n<html><head><style>p {color: red}</style></head><body class=\"x\">a<br>b</body></html>",
		"<p>žluťoučký 😀 and &amp; &euro; &nbsp; &unknown; & alone</p>",
		"<p>back\\slash {braces}\ttab\nline</p>",
		"<script>if (a < b && c) { d(); }</script>",
		"<td>a</td><td>b</td><!-- a comment -->",
		"unclosed <b",
	}
	for _, source := range cases {
		t.Run(source[:min(len(source), 20)], func(t *testing.T) {
			t.Parallel()
			got := rtf.Encapsulate(source)
			if !bytes.Contains(got[:60], []byte(`\fromhtml1`)) {
				t.Error("it doesn't say that it holds HTML")
			}
			if back := unpack(t, got); back != source {
				t.Errorf("came back as %q\nfrom %s", back, got)
			}
		})
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, rtf, want string }{
		{"paragraphs", `{\rtf1\ansi{\fonttbl{\f0 Arial;}}\pard one\par two\tab x\line y}`, "one\ntwo\tx\ny"},
		{"escapes", `{\rtf1 \{a\\b\} caf\'e9 \u382?\u-10179?\u-8704?}`, "{a\\b} café ž😀"},
		{"left out", `{\rtf1{\*\generator x;}{\pict 0102}\htmlrtf no\htmlrtf0 yes}`, "yes"},
		{"broken", `{\rtf1 a}}}\u`, "a\x00"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := rtf.Text([]byte(c.rtf)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzDecompress(f *testing.F) {
	f.Add(rtf.Compress([]byte("{\\rtf1 text text text}")))
	f.Add(rtf.Compress(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := rtf.Decompress(b, 1<<20)
		if err != nil {
			return
		}
		if again, err := rtf.Decompress(rtf.Compress(text), 1<<20); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q came back as %q, %v", text, again, err)
		}
		rtf.Text(text)
	})
}

func BenchmarkCompress(b *testing.B) {
	text := rtf.Encapsulate(strings.Repeat("<p>A line of text with <b>markup</b>.</p>\n", 500))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		rtf.Compress(text)
	}
}
