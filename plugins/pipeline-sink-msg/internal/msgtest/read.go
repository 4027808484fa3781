// Package msgtest reads .msg files back for tests, through a compound file
// reader that isn't ours, and says where one breaks the rules of MS-OXMSG. It
// trusts only what the property streams announce, as Outlook does.
package msgtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/richardlehane/mscfb"
)

// Object is a message, a recipient or an attachment as it was read.
type Object struct {
	Fixed       map[uint32]uint64   // tag -> value
	Streams     map[uint32][]byte   // tag -> octets; of big streams the first MiB
	Sums        map[uint32]string   // tag -> hex sha256 of the whole stream
	Sizes       map[uint32]int64    // tag -> octets of the whole stream
	Lists       map[uint32][]string // tag -> values of a multi-valued text
	Recipients  []*Object
	Attachments []*Object
	Message     *Object // of an attachment that holds one
	Names       map[string]uint16
	Findings    []string // of the root only
}

// Text returns a text property; empty when it isn't there.
func (o *Object) Text(id uint16) string { return decode(o.Streams[uint32(id)<<16|0x1F]) }

// Has reports whether there is a property of the id, whatever its type.
func (o *Object) Has(id uint16) bool {
	for t := range o.Fixed {
		if t>>16 == uint32(id) {
			return true
		}
	}
	for t := range o.Streams {
		if t>>16 == uint32(id) {
			return true
		}
	}
	return false
}

// Binary returns a binary property.
func (o *Object) Binary(id uint16) []byte { return o.Streams[uint32(id)<<16|0x102] }

// Int returns a number; 0 when it isn't there.
func (o *Object) Int(id uint16) int32 { return int32(o.Fixed[uint32(id)<<16|3]) }

// Bool returns a truth value.
func (o *Object) Bool(id uint16) bool { return o.Fixed[uint32(id)<<16|0xB] != 0 }

// Time returns a moment in UTC, the zero time when it isn't there.
func (o *Object) Time(id uint16) time.Time {
	v, ok := o.Fixed[uint32(id)<<16|0x40]
	if !ok {
		return time.Time{}
	}
	return time.Unix(int64(v/1e7)-11644473600, int64(v%1e7)*100).UTC()
}

func decode(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}

const keep = 1 << 20

type node struct {
	dir  bool
	kids map[string]*node
	data []byte
	size int64
	sum  string
}

type reader struct {
	findings []string
	named    int
}

func (r *reader) bad(format string, args ...any) {
	r.findings = append(r.findings, fmt.Sprintf(format, args...))
}

// Read reads the file. An error means that it is no compound file; breaches of
// MS-OXMSG are Findings.
func Read(file io.ReaderAt) (*Object, error) {
	doc, err := mscfb.New(file)
	if err != nil {
		return nil, fmt.Errorf("mscfb refuses the file: %w", err)
	}
	r := &reader{}
	if id := doc.ID(); !strings.EqualFold(strings.Trim(id, "{}"), "00020D0B-0000-0000-C000-000000000046") {
		r.bad("class of the root is %s", id)
	}
	root := &node{dir: true, kids: map[string]*node{}}
	buf := make([]byte, 32<<10)
	for e, err := doc.Next(); err == nil; e, err = doc.Next() {
		at := root
		for _, p := range e.Path {
			if at.kids[p] == nil {
				at.kids[p] = &node{dir: true, kids: map[string]*node{}}
			}
			at = at.kids[p]
		}
		if e.FileInfo().IsDir() {
			if at.kids[e.Name] == nil {
				at.kids[e.Name] = &node{dir: true, kids: map[string]*node{}}
			}
			continue
		}
		n, sum := &node{}, sha256.New()
		for n.size < e.Size {
			k, err := e.Read(buf)
			sum.Write(buf[:k])
			n.data = append(n.data, buf[:min(k, max(0, keep-len(n.data)))]...)
			n.size += int64(k)
			if err != nil {
				break
			}
		}
		if n.size != e.Size {
			r.bad("%s: %d of %d octets could be read", e.Name, n.size, e.Size)
		}
		n.sum = hex.EncodeToString(sum.Sum(nil))
		if at.kids[e.Name] != nil {
			r.bad("%s: there twice", e.Name)
		}
		at.kids[e.Name] = n
	}
	names := r.names(root.kids["__nameid_version1.0"])
	o := r.object(root, 32, "")
	o.Names = names
	o.Findings = r.findings
	return o, nil
}

func (r *reader) object(n *node, header int, where string) *Object {
	o := &Object{Fixed: map[uint32]uint64{}, Streams: map[uint32][]byte{}, Sums: map[uint32]string{}, Sizes: map[uint32]int64{}, Lists: map[uint32][]string{}}
	p := n.kids["__properties_version1.0"]
	if p == nil || len(p.data) < header || (len(p.data)-header)%16 != 0 {
		r.bad("%s: no property stream, or one of a wrong length", where)
		return o
	}
	used := map[string]bool{"__properties_version1.0": true}
	if header == 32 {
		used["__nameid_version1.0"] = true
	}
	seen := map[uint16]bool{}
	for b := p.data[header:]; len(b) > 0; b = b[16:] {
		tag, v := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[8:])
		r.property(o, n, used, tag, v, where)
		id := uint16(tag >> 16)
		if seen[id] {
			r.bad("%s: %08X is there twice", where, tag)
		}
		seen[id] = true
		if f := binary.LittleEndian.Uint32(b[4:]); f != 6 && f != 2 {
			r.bad("%s: %08X has flags %X", where, tag, f)
		}
		if id >= 0x8000 && int(id) >= 0x8000+r.named {
			r.bad("%s: %08X has no name", where, tag)
		}
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("__recip_version1.0_#%08X", i)
		k := n.kids[name]
		if k == nil {
			break
		}
		used[name] = true
		o.Recipients = append(o.Recipients, r.object(k, 8, where+"/"+name))
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("__attach_version1.0_#%08X", i)
		k := n.kids[name]
		if k == nil {
			break
		}
		used[name] = true
		a := r.object(k, 8, where+"/"+name)
		r.attachment(a, i, where+"/"+name)
		o.Attachments = append(o.Attachments, a)
	}
	for name := range n.kids {
		if !used[name] {
			r.bad("%s: %s isn't announced", where, name)
		}
	}
	if header >= 24 {
		h := p.data[8:]
		for i, want := range []int{len(o.Recipients), len(o.Attachments), len(o.Recipients), len(o.Attachments)} {
			if got := int(binary.LittleEndian.Uint32(h[4*i:])); got != want {
				r.bad("%s: count %d of the header is %d, not %d", where, i, got, want)
			}
		}
		r.message(o, where)
	}
	return o
}

func (r *reader) property(o *Object, n *node, used map[string]bool, tag uint32, v uint64, where string) {
	name := fmt.Sprintf("__substg1.0_%08X", tag)
	size := uint32(v)
	switch tag & 0xFFFF {
	case 3:
		o.Fixed[tag] = v
		if v>>32 != 0 {
			r.bad("%s: %08X has padding", where, tag)
		}
	case 0xB:
		o.Fixed[tag] = v
		if v > 1 {
			r.bad("%s: %08X is %X", where, tag, v)
		}
	case 0x40:
		o.Fixed[tag] = v
	case 0xD:
		k := n.kids[name]
		used[name] = true
		if k == nil || !k.dir || size != 0xFFFFFFFF || v>>32 != 1 {
			r.bad("%s: %08X is no embedded message", where, tag)
			return
		}
		o.Message = r.object(k, 24, where+"/"+name)
		o.Fixed[tag] = v
	case 0x1F, 0x102, 0x101F:
		k := n.kids[name]
		used[name] = true
		if k == nil || k.dir {
			r.bad("%s: %08X has no stream", where, tag)
			return
		}
		want := k.size
		if tag&0xFFFF == 0x1F {
			want += 2
			if k.size == 0 || k.size%2 != 0 {
				r.bad("%s: the text %08X has %d octets", where, tag, k.size)
			}
			if strings.ContainsRune(decode(k.data), 0) {
				r.bad("%s: the text %08X holds a NUL", where, tag)
			}
		}
		if int64(size) != want || v>>32 != 0 {
			r.bad("%s: %08X says %d octets, %d are there", where, tag, v, k.size)
		}
		o.Streams[tag], o.Sums[tag], o.Sizes[tag] = k.data, k.sum, k.size
		if tag&0xFFFF == 0x101F {
			r.list(o, n, used, tag, k.data, where)
		}
	default:
		r.bad("%s: %08X has an unknown type", where, tag)
	}
}

func (r *reader) list(o *Object, n *node, used map[string]bool, tag uint32, lengths []byte, where string) {
	for i := 0; i+4 <= len(lengths); i += 4 {
		name := fmt.Sprintf("__substg1.0_%08X-%08X", tag, i/4)
		used[name] = true
		k := n.kids[name]
		if k == nil || int(binary.LittleEndian.Uint32(lengths[i:])) != len(k.data) || !bytes.HasSuffix(k.data, []byte{0, 0}) {
			r.bad("%s: %s is missing or has a wrong length", where, name)
			continue
		}
		o.Lists[tag] = append(o.Lists[tag], strings.TrimRight(decode(k.data), "\x00"))
	}
}

func (r *reader) message(o *Object, where string) {
	for _, tag := range []uint32{0x340D0003, 0x0E070003, 0x3FDE0003, 0x0E1B000B, 0x00170003} {
		if _, ok := o.Fixed[tag]; !ok {
			r.bad("%s: no %08X", where, tag)
		}
	}
	if o.Int(0x340D)&0x40000 == 0 {
		r.bad("%s: 340D0003 doesn't say Unicode", where)
	}
	if o.Text(0x1A) == "" {
		r.bad("%s: no message class", where)
	}
	if o.Text(0x3D)+o.Text(0xE1D) != o.Text(0x37) {
		r.bad("%s: prefix %q and subject %q don't make %q", where, o.Text(0x3D), o.Text(0xE1D), o.Text(0x37))
	}
	if o.Has(0x1013) && !o.Has(0x1000) {
		r.bad("%s: HTML without text", where)
	}
	names := map[int32][]string{}
	for i, p := range o.Recipients {
		names[p.Int(0xC15)] = append(names[p.Int(0xC15)], p.Text(0x3001))
		if int(p.Int(0x3000)) != i {
			r.bad("%s: recipient %d has row id %d", where, i, p.Int(0x3000))
		}
	}
	for typ, id := range map[int32]uint16{1: 0xE04, 2: 0xE03, 3: 0xE02} {
		if got, want := o.Text(id), strings.Join(names[typ], "; "); got != want && len(want) < 4096 {
			r.bad("%s: %04X is %q, the recipients are %q", where, id, got, want)
		}
	}
	if len(o.Recipients) > 2048 || len(o.Attachments) > 2048 {
		r.bad("%s: %d recipients, %d attachments", where, len(o.Recipients), len(o.Attachments))
	}
}

func (r *reader) attachment(a *Object, i int, where string) {
	switch a.Int(0x3705) {
	case 1:
		if !a.Has(0x3701) {
			r.bad("%s: no data", where)
		}
		if a.Text(0x3707) == "" || a.Text(0x3704) == "" {
			r.bad("%s: no name", where)
		}
	case 5:
		if a.Message == nil {
			r.bad("%s: no message", where)
		}
	default:
		r.bad("%s: method %d", where, a.Int(0x3705))
	}
	if int(a.Int(0xE21)) != i {
		r.bad("%s: number %d", where, a.Int(0xE21))
	}
}

// names checks the map of named properties and returns "{set}/name" -> id.
func (r *reader) names(n *node) map[string]uint16 {
	out := map[string]uint16{}
	if n == nil || n.kids["__substg1.0_00020102"] == nil || n.kids["__substg1.0_00030102"] == nil || n.kids["__substg1.0_00040102"] == nil {
		r.bad("the map of named properties isn't there")
		return out
	}
	guids, entries, texts := n.kids["__substg1.0_00020102"].data, n.kids["__substg1.0_00030102"].data, n.kids["__substg1.0_00040102"].data
	r.named = len(entries) / 8
	hashed := 0
	for k, v := range n.kids {
		if strings.HasPrefix(k, "__substg1.0_10") {
			hashed += len(v.data) / 8
		}
	}
	if hashed != r.named {
		r.bad("%d names, %d of them in hash streams", r.named, hashed)
	}
	for i := range r.named {
		e := entries[8*i:]
		id, kind, index := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint16(e[4:]), binary.LittleEndian.Uint16(e[6:])
		if int(index) != i {
			r.bad("name %d has index %d", i, index)
		}
		set := "public"
		if g := int(kind>>1) - 3; g >= 0 && 16*g+16 <= len(guids) {
			set = hex.EncodeToString(guids[16*g : 16*g+16])
		} else if kind>>1 != 2 {
			r.bad("name %d has set %d", i, kind>>1)
		}
		key := fmt.Sprintf("%s/%04X", set, id)
		if kind&1 != 0 {
			if int(id)+4 > len(texts) || int(id)+4+int(binary.LittleEndian.Uint32(texts[id:])) > len(texts) {
				r.bad("name %d lies outside the texts", i)
				continue
			}
			key = set + "/" + decode(texts[id+4:][:binary.LittleEndian.Uint32(texts[id:])])
		}
		if _, dup := out[key]; dup {
			r.bad("%s is mapped twice", key)
		}
		out[key] = 0x8000 + index
	}
	return out
}
