// Package rtf holds what Outlook does with RTF: its compression (MS-OXRTFCP),
// HTML encapsulated in it (MS-OXRTFEX), and the plain text of it.
package rtf

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	magicLZFu  = 0x75465A4C
	magicMELA  = 0x414C454D
	window     = 4096
	headerSize = 16
)

// prebuf is what the dictionary begins with (MS-OXRTFCP §2.2.2.1).
const prebuf = `{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0` + "\r\n" + `\par \pard\plain\f0\fs20\b\i\u\tab\tx`

// ErrCorrupt says that compressed RTF breaks its format.
var ErrCorrupt = errors.New("the compressed RTF is corrupt")

func checksum(b []byte) uint32 { return ^crc32.Update(0xFFFFFFFF, crc32.IEEETable, b) }

// Compress returns rtf as PidTagRtfCompressed holds it. It finds repeats
// through a table of where each three octets were last seen.
func Compress(rtf []byte) []byte {
	out := make([]byte, headerSize, headerSize+len(rtf)/2+16)
	// The dictionary and the text in one piece; positions in the dictionary
	// are those modulo its size.
	all := make([]byte, 0, len(prebuf)+len(rtf))
	all = append(append(all, prebuf...), rtf...)
	var last [1 << 13]int32
	for i := range last {
		last[i] = -1
	}
	hash := func(i int) int {
		return int((uint32(all[i])|uint32(all[i+1])<<8|uint32(all[i+2])<<16)*2654435761>>19) & (len(last) - 1)
	}
	for i := range len(prebuf) - 2 {
		last[hash(i)] = int32(i)
	}
	control, bit := -1, 8
	token := func(reference bool) {
		if bit == 8 {
			control, bit = len(out), 0
			out = append(out, 0)
		}
		if reference {
			out[control] |= 1 << bit
		}
		bit++
	}
	for i := len(prebuf); i < len(all); {
		length, from := 0, 0
		if i+3 <= len(all) {
			h := hash(i)
			if at := int(last[h]); at >= 0 && i-at < window {
				for length < 17 && i+length < len(all) && all[at+length] == all[i+length] {
					length++
				}
				from = at
			}
			last[h] = int32(i)
		}
		if length < 3 {
			token(false)
			out = append(out, all[i])
			i++
			continue
		}
		token(true)
		out = binary.BigEndian.AppendUint16(out, uint16(from%window<<4|(length-2)))
		for k := 1; k < length; k++ {
			if i+k+3 <= len(all) {
				last[hash(i+k)] = int32(i + k)
			}
		}
		i += length
	}
	// A reference to where the next octet would be written ends it.
	token(true)
	out = binary.BigEndian.AppendUint16(out, uint16(len(all)%window<<4))
	binary.LittleEndian.PutUint32(out, uint32(len(out)-4))
	binary.LittleEndian.PutUint32(out[4:], uint32(len(rtf)))
	binary.LittleEndian.PutUint32(out[8:], magicLZFu)
	binary.LittleEndian.PutUint32(out[12:], checksum(out[headerSize:]))
	return out
}

// Decompress returns the RTF of a PidTagRtfCompressed, at most limit octets of
// it. It is strict: sizes, checksum and end marker must be right.
func Decompress(b []byte, limit int) ([]byte, error) {
	if len(b) < headerSize || int64(binary.LittleEndian.Uint32(b)) != int64(len(b)-4) {
		return nil, ErrCorrupt
	}
	size := int64(binary.LittleEndian.Uint32(b[4:]))
	if size > int64(limit) {
		return nil, ErrCorrupt
	}
	switch binary.LittleEndian.Uint32(b[8:]) {
	case magicMELA:
		if int64(len(b)-headerSize) < size {
			return nil, ErrCorrupt
		}
		return b[headerSize : headerSize+size], nil
	case magicLZFu:
	default:
		return nil, ErrCorrupt
	}
	if checksum(b[headerSize:]) != binary.LittleEndian.Uint32(b[12:]) {
		return nil, ErrCorrupt
	}
	var dict [window]byte
	at := copy(dict[:], prebuf)
	out := make([]byte, 0, size)
	put := func(c byte) {
		out = append(out, c)
		dict[at%window] = c
		at++
	}
	for i := headerSize; i < len(b); {
		control := b[i]
		i++
		for bit := 0; bit < 8; bit++ {
			if control>>bit&1 == 0 {
				if i >= len(b) || int64(len(out)) >= size {
					return nil, ErrCorrupt
				}
				put(b[i])
				i++
				continue
			}
			if i+2 > len(b) {
				return nil, ErrCorrupt
			}
			v := int(binary.BigEndian.Uint16(b[i:]))
			i += 2
			from := v >> 4
			if from == at%window {
				if int64(len(out)) != size {
					return nil, ErrCorrupt
				}
				return out, nil
			}
			for k := range v&15 + 2 {
				if int64(len(out)) >= size {
					return nil, ErrCorrupt
				}
				put(dict[(from+k)%window])
			}
		}
	}
	return nil, ErrCorrupt
}
