package segments

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A journal is kept as the journals of single transactions, each after its
// length, compressed. Receipts share most of their octets, hashes none: level 1
// gets what there is.

// frame appends one transaction's journal.
func frame(to, journal []byte) []byte {
	return append(binary.AppendUvarint(to, uint64(len(journal))), journal...)
}

// unframe returns the journals that frame put together.
func unframe(b []byte) (journals [][]byte, err error) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, fmt.Errorf("it ends within a transaction")
		}
		end := n + int(size)
		journals = append(journals, b[n:end:end])
		b = b[end:]
	}
	return journals, nil
}

// compressor compresses; one is kept for a ledger, because its tables are
// large. It isn't safe for concurrent use.
type compressor struct{ w *flate.Writer }

func (c *compressor) to(w io.Writer) (*flate.Writer, error) {
	if c.w != nil {
		c.w.Reset(w)
		return c.w, nil
	}
	var err error
	c.w, err = flate.NewWriter(w, flate.BestSpeed)
	return c.w, err
}

func (c *compressor) compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := c.to(&out)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	return out.Bytes(), err
}

// most bounds what a piece of the journal may unpack to, whatever it says.
const most = math.MaxInt32

func decompress(b []byte) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), most))
	if err == nil && len(out) == most {
		err = fmt.Errorf("it unpacks to %d octets and more", most)
	}
	return out, err
}

func sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
