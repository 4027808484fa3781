package target

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// ManifestName is where the manifest stands in a directory target.
const ManifestName = Books + "/manifest.jsonl"

// orphansName keeps rows of a manifest whose ledger is gone.
const orphansName = "manifest.orphaned.jsonl"

// Row is a line of the manifest: what the ledger must know of a file. Where
// an id and part stand twice the later row counts.
type Row struct {
	ID     message.ID
	Part   string // of the message, where a sink makes several files of one; see message.Part
	Path   string // relative to the target, "/" between levels
	Size   int64  // octets
	SHA256 string // hex, of the file's octets
}

// rowJSON is how a Row stands in the file.
type rowJSON struct {
	ID     idJSON `json:"id"`
	Part   string `json:"part,omitempty"`
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

type idJSON struct {
	Source      string `json:"source"`
	Mailbox     string `json:"mailbox,omitempty"`
	UIDValidity uint32 `json:"uid_validity,omitempty"`
	UID         uint32 `json:"uid,omitempty"`
	UIDL        string `json:"uidl,omitempty"`
	UIDLHex     string `json:"uidl_hex,omitempty"` // instead of uidl where that isn't UTF-8
	HeaderHash  string `json:"header_hash,omitempty"`
	Ordinal     uint32 `json:"ordinal,omitempty"`
}

// Manifest returns the rows of a directory target, in order, from the first.
// The error is of class Full or Config and ends the sequence.
func Manifest(root string) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for l, err := range ManifestLines(root) {
			if err == nil && l.Err != nil {
				err = fault.New(fault.Config, "the manifest %s, row %d: %w", ManifestPath(root), l.Number, l.Err)
			}
			if err != nil {
				yield(Row{}, err)
				return
			}
			if !yield(l.Row, nil) {
				return
			}
		}
	}
}

// ManifestPath returns where the manifest of the directory target root stands.
func ManifestPath(root string) string { return filepath.Join(root, filepath.FromSlash(ManifestName)) }

// ManifestLine is a line of a manifest as it is found.
type ManifestLine struct {
	Row    Row
	Err    error // the line isn't a row
	Number int   // from 1
	Offset int64 // of its first octet
	End    int64 // behind its line end
}

// maxRow bounds the line that is read as a row (I5): ids and paths are far
// shorter.
const maxRow = 1 << 20

// ManifestLines returns the lines of a directory target's manifest, those too
// that aren't rows: for who looks for what is wrong. The error is of class
// Full or Config and ends the sequence.
func ManifestLines(root string) iter.Seq2[ManifestLine, error] { return ManifestLinesFrom(root, 0) }

// ManifestLinesFrom is ManifestLines for those from an offset on, which is the
// end of a line: what came since it was read last. Their numbers count from
// there.
func ManifestLinesFrom(root string, offset int64) iter.Seq2[ManifestLine, error] {
	return func(yield func(ManifestLine, error) bool) {
		path := ManifestPath(root)
		f, err := os.Open(path)
		if err == nil && offset > 0 {
			_, err = f.Seek(offset, io.SeekStart)
		}
		if err != nil {
			yield(ManifestLine{}, DiskError(err, "read the manifest %s", path))
			return
		}
		defer f.Close()
		eachManifestLine(bufio.NewReaderSize(f, 256<<10), "read the manifest "+path, offset, yield)
	}
}

// eachManifestLine yields the lines of a manifest. An error of reading is told
// as what was tried.
func eachManifestLine(r *bufio.Reader, what string, offset int64, yield func(ManifestLine, error) bool) {
	l := ManifestLine{End: offset}
	for {
		text, err := readLine(r)
		if err == io.EOF && len(text) == 0 {
			return
		}
		if err != nil && err != io.EOF && !errors.Is(err, errLongRow) {
			if fault.As(err) == nil {
				err = DiskError(err, "%s", what)
			}
			yield(ManifestLine{}, err)
			return
		}
		l.Number++
		l.Offset, l.End = l.End, l.End+int64(len(text))
		l.Row, l.Err = parseRow(text)
		switch {
		case errors.Is(err, errLongRow):
			l.Err = err
		case err == io.EOF:
			l.Err = errors.New("it is cut short")
		}
		if !yield(l, nil) {
			return
		}
	}
}

var errLongRow = errors.New("it is longer than any row")

// readLine returns a line with its end; one that is far too long in pieces.
func readLine(r *bufio.Reader) ([]byte, error) {
	text, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return text, err
	}
	long := append([]byte(nil), text...)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) > maxRow {
			return long, errLongRow
		}
		text, err = r.ReadSlice('\n')
		long = append(long, text...)
	}
	return long, err
}

// ManifestRow returns the row that stands at an offset of the manifest of the
// directory target root.
func ManifestRow(root string, offset int64) (Row, error) {
	path := ManifestPath(root)
	f, err := os.Open(path)
	if err != nil {
		return Row{}, DiskError(err, "read the manifest %s", path)
	}
	defer f.Close()
	text, err := readLine(bufio.NewReader(io.NewSectionReader(f, offset, maxRow)))
	if err != nil {
		return Row{}, DiskError(err, "read the manifest %s", path)
	}
	return parseRow(text)
}

func parseRow(line []byte) (Row, error) {
	var j rowJSON
	if err := json.Unmarshal(line, &j); err != nil {
		return Row{}, err
	}
	uidl := j.ID.UIDL
	if j.ID.UIDLHex != "" {
		raw, err := hex.DecodeString(j.ID.UIDLHex)
		if err != nil {
			return Row{}, err
		}
		uidl = string(raw)
	}
	return Row{
		ID: message.ID{
			Source: j.ID.Source, Mailbox: j.ID.Mailbox, UIDValidity: j.ID.UIDValidity, UID: j.ID.UID,
			UIDL: uidl, HeaderHash: j.ID.HeaderHash, Ordinal: j.ID.Ordinal,
		},
		Part: j.Part, Path: j.Path, Size: j.Size, SHA256: j.SHA256,
	}, nil
}

// appendRow appends a row as a line. It is written by hand: it stands on the
// way of every message.
func appendRow(b []byte, id *message.ID, part, path string, size int64, sum *[32]byte) []byte {
	b = append(b, `{"id":{"source":`...)
	b = appendString(b, id.Source)
	if id.Mailbox != "" {
		b = appendString(append(b, `,"mailbox":`...), id.Mailbox)
	}
	if id.UIDValidity != 0 {
		b = strconv.AppendUint(append(b, `,"uid_validity":`...), uint64(id.UIDValidity), 10)
	}
	if id.UID != 0 {
		b = strconv.AppendUint(append(b, `,"uid":`...), uint64(id.UID), 10)
	}
	switch {
	case id.UIDL == "":
	case utf8.ValidString(id.UIDL):
		b = appendString(append(b, `,"uidl":`...), id.UIDL)
	default:
		b = append(hex.AppendEncode(append(b, `,"uidl_hex":"`...), []byte(id.UIDL)), '"')
	}
	if id.HeaderHash != "" {
		b = appendString(append(b, `,"header_hash":`...), id.HeaderHash)
	}
	if id.Ordinal != 0 {
		b = strconv.AppendUint(append(b, `,"ordinal":`...), uint64(id.Ordinal), 10)
	}
	b = append(b, '}')
	if part != "" {
		b = appendString(append(b, `,"part":`...), part)
	}
	b = appendString(append(b, `,"path":`...), path)
	b = strconv.AppendInt(append(b, `,"size":`...), size, 10)
	b = hex.AppendEncode(append(b, `,"sha256":"`...), sum[:])
	return append(b, "\"}\n"...)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, err := json.Marshal(s)
			if err != nil { // a string can always be marshalled
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// spill is how many octets of rows wait in memory for Flush.
const spill = 1 << 20

// manifest appends rows. It is safe for concurrent use.
type manifest struct {
	mu     sync.Mutex
	path   string
	file   *os.File
	sealed []byte // rows that aren't in the file yet: of a sealed epoch,
	buf    []byte // and those after them
	length int64  // in the file
}

// openManifest opens the manifest as it was at a commit: what stands behind
// was never committed and isn't trusted. Without a commit nothing is; but rows
// of a target that was adopted are another ledger's, which may have been lost:
// keep says to put them aside.
func openManifest(books string, committed int64, keep bool) (*manifest, error) {
	path := filepath.Join(books, filepath.Base(ManifestName))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, DiskError(err, "open the manifest %s", path)
	}
	m := &manifest{path: path, file: f, length: committed}
	if err := m.rollBack(keep && committed == 0, filepath.Join(books, orphansName)); err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

func (m *manifest) rollBack(keep bool, orphans string) error {
	info, err := m.file.Stat()
	if err != nil {
		return DiskError(err, "look at the manifest %s", m.path)
	}
	if info.Size() < m.length {
		return fault.New(fault.Config, "the manifest %s has %d octets, the ledger committed %d: the target isn't as it was left",
			m.path, info.Size(), m.length).
			WithHint("put the target back as it was, or write everything anew with --rewrite").WithKey("path")
	}
	if info.Size() == m.length {
		return nil
	}
	if keep {
		if err := SetAside(orphans, m.file); err != nil {
			return err
		}
	}
	return DiskError(m.file.Truncate(m.length), "roll the manifest %s back", m.path)
}

// SetAside appends what r gives to the file at path, durably: what must be
// taken out of use but may still be worth something to its owner.
func SetAside(path string, r io.Reader) error {
	return DiskError(appendFile(path, r), "set aside to %s", path)
}

func appendFile(path string, r io.Reader) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err = io.Copy(f, r); err != nil {
		return err
	}
	return f.Sync()
}

// add appends a row.
func (m *manifest) add(id *message.ID, part, path string, size int64, sum *[32]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buf = appendRow(m.buf, id, part, path, size, sum)
	if len(m.buf) < spill {
		return nil
	}
	return m.write()
}

// seal returns the length that the manifest has with all rows so far. Those in
// memory are for writeSealed, which comes before the next seal: rows that come
// meanwhile stand behind them.
func (m *manifest) seal() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sealed, m.buf = m.buf, m.sealed[:0]
	return m.length + int64(len(m.sealed))
}

// writeSealed brings the sealed rows into the file, if they aren't there yet.
func (m *manifest) writeSealed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.into(&m.sealed)
}

// write brings all rows in memory into the file, in their order. The lock is
// held.
func (m *manifest) write() error {
	if err := m.into(&m.sealed); err != nil {
		return err
	}
	return m.into(&m.buf)
}

func (m *manifest) into(rows *[]byte) error {
	if len(*rows) == 0 {
		return nil
	}
	n, err := m.file.WriteAt(*rows, m.length)
	if err != nil {
		return DiskError(err, "write the manifest %s", m.path)
	}
	m.length += int64(n)
	*rows = (*rows)[:0]
	return nil
}

// removeTemps empties the directory of temporary files that a crash left.
func removeTemps(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if err == nil {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	return DiskError(err, "clean the directory of temporary files %s", dir)
}
