package custody

import (
	"bufio"
	"bytes"
	"crypto/md5" //nolint:gosec // asked for beside sha256, never alone
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
)

// sums are the hashes of files by their paths, which are relative to the
// custody folder, "/" between levels.
type sums map[string]string

func newHash(name string) hash.Hash {
	if name == "md5" {
		return md5.New() //nolint:gosec // see above
	}
	return sha256.New()
}

// appendSum appends a line as sha256sum and md5sum write it: a name with a
// line end or a backslash is escaped, and the line then begins with one.
func appendSum(b []byte, sum, path string) []byte {
	if strings.ContainsAny(path, "\\\n\r") {
		path = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(path)
		b = append(b, '\\')
	}
	b = append(append(b, sum...), "  "...)
	return append(append(b, path...), '\n')
}

// split tells the files from the objects.
func (s sums) split() (files, objects sums) {
	files, objects = sums{}, sums{}
	for path, sum := range s {
		if inBucket(path) {
			objects[path] = sum
		} else {
			files[path] = sum
		}
	}
	return files, objects
}

// hashOf returns the hash that a manifest is of, by its name.
func hashOf(name, prefix string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, prefix), objectsName)
}

// format writes sums as a manifest, by path.
func (s sums) format() []byte {
	paths := make([]string, 0, len(s))
	for p := range s {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	var b []byte
	for _, p := range paths {
		b = appendSum(b, s[p], p)
	}
	return b
}

// readSums reads a manifest.
func readSums(r io.Reader) (sums, error) {
	s := sums{}
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), 1<<20)
	in.Split(scanLines)
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		escaped := strings.HasPrefix(line, `\`)
		sum, path, ok := strings.Cut(strings.TrimPrefix(line, `\`), "  ")
		raw, err := hex.DecodeString(sum)
		if !ok || err != nil || len(raw) < 16 || path == "" {
			return nil, fmt.Errorf("line %d is no line of a manifest", n)
		}
		if escaped {
			path = unescape(path)
		}
		if _, twice := s[path]; twice {
			return nil, fmt.Errorf("line %d: %s stands there twice", n, path)
		}
		s[path] = sum
	}
	return s, in.Err()
}

// scanLines is bufio.ScanLines that leaves CR alone, and wants the last line
// whole.
func scanLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, errors.New("the last line is cut short")
	}
	return 0, nil, nil
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			default:
				b.WriteByte(s[i])
			}
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// hashAll reads octets to their end for several hashes, and counts them.
func hashAll(f io.Reader, buf []byte, hashes ...hash.Hash) (int64, error) {
	var size int64
	for {
		n, err := f.Read(buf)
		size += int64(n)
		for _, h := range hashes {
			h.Write(buf[:n])
		}
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func hexOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }
