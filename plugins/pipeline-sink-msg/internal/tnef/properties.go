package tnef

import "encoding/binary"

// properties is propertyList for a list that is all of b.
func properties(b []byte, f func(id, typ uint16, value []byte, at int)) error {
	_, err := propertyList(b, f)
	return err
}

// propertyList goes over a list of MAPI properties (MS-OXTNEF §2.1.3.4) and
// calls f with the first value of each, and where in b it is. It returns the
// length of the list.
func propertyList(b []byte, f func(id, typ uint16, value []byte, at int)) (int, error) {
	c := cursor{b: b}
	n := c.u32()
	for range n {
		typ, id := c.u16(), c.u16()
		if id >= 0x8000 {
			c.skip(16)
			if c.u32() == 0 {
				c.skip(4)
			} else {
				c.padded(int64(c.u32()))
			}
		}
		multi := typ&0x1000 != 0
		base := typ &^ 0x1000
		variable := base == 0x1E || base == 0x1F || base == 0x0D || base == 0x0102
		count := uint32(1)
		if multi || variable {
			count = c.u32()
		}
		if int64(count) > int64(len(b)) {
			return 0, ErrCorrupt
		}
		for i := range count {
			if c.bad {
				return 0, ErrCorrupt
			}
			size := int64(fixed(base))
			if variable {
				size = int64(c.u32())
			} else if size < 0 {
				return 0, ErrCorrupt
			}
			at := c.at
			v := c.padded(size)
			if i == 0 && !c.bad {
				f(id, typ, v, at)
			}
		}
		if c.bad {
			return 0, ErrCorrupt
		}
	}
	if c.bad {
		return 0, ErrCorrupt
	}
	return c.at, nil
}

// fixed returns the octets of a value of a fixed type.
func fixed(typ uint16) int {
	switch typ {
	case 0x01:
		return 0
	case 0x02, 0x03, 0x04, 0x0A, 0x0B:
		return 4
	case 0x05, 0x06, 0x07, 0x14, 0x40:
		return 8
	case 0x48:
		return 16
	}
	return -1
}

type cursor struct {
	b   []byte
	at  int
	bad bool
}

func (c *cursor) skip(n int64) []byte {
	if c.bad || n < 0 || int64(len(c.b)-c.at) < n {
		c.bad = true
		return nil
	}
	v := c.b[c.at : c.at+int(n)]
	c.at += int(n)
	return v
}

// padded takes n octets and what fills them up to a multiple of four, which may
// be missing at the very end.
func (c *cursor) padded(n int64) []byte {
	v := c.skip(n)
	if !c.bad {
		c.at = min(c.at+int(-n&3), len(c.b))
	}
	return v
}

func (c *cursor) u16() uint16 {
	if v := c.skip(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if v := c.skip(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}
