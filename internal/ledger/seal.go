package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	disk "github.com/mailhaul/pipeline/pkg/target"
)

// SQLite notices what breaks the form of its file, and no other octet that
// changed. So a ledger that is closed is sealed: a sum of its file lies beside
// it. It is checked and taken away when the ledger is opened, before anything
// is changed. After a crash there is none; then form alone is checked, and what
// the log holds (its frames have sums of their own).

// sealEnd is the ending of the seal's file.
const sealEnd = ".sum"

// seal is what stands in it. Stamp stands in the ledger too: a seal that lies
// beside another file, one that was put back from a backup, says nothing of it.
type seal struct {
	Stamp string `json:"stamp"`
	Size  int64  `json:"size"`
	CRC32 uint32 `json:"crc32c"`
}

// sum reads the ledger's file for a seal.
func (l *Ledger) sum() (s seal, err error) {
	f, err := os.Open(l.path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	s.Size, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	s.CRC32 = h.Sum32()
	return s, err
}

// broken is a seal that its file doesn't match.
type broken struct{ sealed, found seal }

func (b *broken) Error() string {
	return fmt.Sprintf("it changed since it was closed: %d octets with the sum %08x, not %d with %08x",
		b.found.Size, b.found.CRC32, b.sealed.Size, b.sealed.CRC32)
}

// checkSeal holds the file against its seal, before SQLite opens it. Whether
// the seal is that of this file is known after.
func (l *Ledger) checkSeal() (*broken, error) {
	text, err := os.ReadFile(l.path + sealEnd)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var b broken
	var ok bool
	if b.sealed, ok = parseSeal(text); !ok {
		return nil, nil // it is no seal any more, and says nothing
	}
	b.found, err = l.sum()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the ledger was moved away, and this forgotten
	}
	b.found.Stamp = b.sealed.Stamp
	if err != nil || b.sealed == b.found {
		return nil, err
	}
	return &b, nil
}

func parseSeal(text []byte) (s seal, ok bool) {
	ok = json.Unmarshal(text, &s) == nil
	return s, ok
}

// unseal takes the seal away, durably: one that outlived what comes would call
// it damage.
func (l *Ledger) unseal(ctx context.Context, b *broken) error {
	if b != nil {
		var stamp string
		err := l.db.QueryRowContext(ctx, "SELECT COALESCE((SELECT value FROM meta WHERE key = 'seal'), '')").Scan(&stamp)
		if err != nil {
			return l.wrap(err, "read the seal")
		}
		if stamp == b.sealed.Stamp {
			return l.wrap(&damage{"the file", b}, "open")
		}
	}
	err := os.Remove(l.path + sealEnd)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = disk.SyncDir(l.dir())
	}
	return disk.DiskError(err, "ledger %s: take its seal away", l.path)
}

// stamp prepares a seal: it is the last that is written.
func (l *Ledger) stamp(ctx context.Context) (seal, error) {
	s := seal{Stamp: rand.Text()}
	_, err := l.db.ExecContext(ctx, "INSERT OR REPLACE INTO meta VALUES ('seal', ?)", s.Stamp)
	return s, err
}

// seal seals the file that SQLite has closed. Where somebody reads it still,
// the log stays, and there is no seal.
func (l *Ledger) seal(s seal) error {
	if _, err := os.Stat(l.path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sum, err := l.sum()
	if err != nil {
		return err
	}
	sum.Stamp = s.Stamp
	text, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	return disk.WriteFile(l.path+sealEnd, append(text, '\n'))
}
