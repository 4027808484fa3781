package mapi

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// Set is a property set: the GUID of a family of named properties, in the
// byte order of the file.
type Set [16]byte

// The sets used in mail (MS-OXPROPS §1.3.2).
var (
	PublicStrings   = Set{0x29, 0x03, 0x02, 0, 0, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0x46}
	InternetHeaders = Set{0x86, 0x03, 0x02, 0, 0, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0x46}
	Common          = Set{0x08, 0x20, 0x06, 0, 0, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0x46}
)

// maxNames is how many names a file takes: ids from 0x8000 up to 0xFFFE
// (MS-OXMSG §2.2.3). More is no error: the property is left out.
const maxNames = 0x7FFE

type name struct {
	set  Set
	id   uint32 // where text is empty
	text string
}

type namedProperties struct {
	ids   map[name]uint16
	order []name
}

func (n *namedProperties) reset() {
	clear(n.ids)
	clear(n.order)
	n.order = n.order[:0]
}

func (n *namedProperties) id(key name) (uint16, bool) {
	if id, ok := n.ids[key]; ok {
		return id, true
	}
	if len(n.order) >= maxNames {
		return 0, false
	}
	if n.ids == nil {
		n.ids = map[name]uint16{}
	}
	id := uint16(0x8000 + len(n.order))
	n.ids[key] = id
	n.order = append(n.order, key)
	return id, true
}

// Named returns the id in this file of the property with a numeric name, and
// false when the file has no room for more names.
func (f *File) Named(set Set, id uint32) (uint16, bool) { return f.named.id(name{set: set, id: id}) }

// NamedString is Named for a property whose name is a text. Names in
// InternetHeaders are kept in lower case: case has no meaning there
// (MS-OXCMAIL §2.1.3.2.3).
func (f *File) NamedString(set Set, text string) (uint16, bool) {
	if set == InternetHeaders {
		text = strings.ToLower(text)
	}
	if text == "" {
		return 0, false
	}
	return f.named.id(name{set: set, text: text})
}

// write adds the named property mapping storage (MS-OXMSG §2.2.3), which is
// there even when it is empty.
func (n *namedProperties) write(f *File) {
	s := f.file.AddStorage(0, "__nameid_version1.0")
	var guids, texts []byte
	entries := make([]byte, 0, 8*len(n.order))
	var hashes [31][]byte
	for i, key := range n.order {
		guid, isNew := guidIndex(guids, key.set)
		if isNew {
			guids = append(guids, key.set[:]...)
		}
		kind, id, hash := guid<<1, key.id, key.id
		if key.text != "" {
			kind |= 1
			text := f.utf16(key.text, 0)
			id = uint32(len(texts))
			hash = checksum(text)
			texts = binary.LittleEndian.AppendUint32(texts, uint32(len(text)))
			texts = append(texts, text...)
			for len(texts)%4 != 0 {
				texts = append(texts, 0)
			}
		}
		entries = appendEntry(entries, id, kind, i)
		h := (hash ^ uint32(kind)) % 31
		hashes[h] = appendEntry(hashes[h], hash, kind, i)
	}
	f.file.AddStream(s, "__substg1.0_00020102", guids)
	f.file.AddStream(s, "__substg1.0_00030102", entries)
	f.file.AddStream(s, "__substg1.0_00040102", texts)
	for h, b := range hashes {
		if b != nil {
			f.file.AddStream(s, fmt.Sprintf("__substg1.0_%04X0102", 0x1000+h), b)
		}
	}
}

// guidIndex returns the set's index: 2 for the well-known one that isn't
// listed, 3 and up for the others in the order of the GUID stream.
func guidIndex(guids []byte, set Set) (index uint16, isNew bool) {
	if set == PublicStrings {
		return 2, false
	}
	for i := 0; i < len(guids); i += 16 {
		if Set(guids[i:i+16]) == set {
			return uint16(3 + i/16), false
		}
	}
	return uint16(3 + len(guids)/16), true
}

func appendEntry(b []byte, id uint32, kind uint16, index int) []byte {
	b = binary.LittleEndian.AppendUint32(b, id)
	b = binary.LittleEndian.AppendUint16(b, kind)
	return binary.LittleEndian.AppendUint16(b, uint16(index))
}

// checksum is CRC-32 that starts at 0 and isn't inverted at the end (MS-OXMSG
// §2.2.3.2.2, as files have it).
func checksum(b []byte) uint32 { return ^crc32.Update(0xFFFFFFFF, crc32.IEEETable, b) }
