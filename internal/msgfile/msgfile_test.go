package msgfile

import (
	"bytes"
	"testing"
)

// FuzzRead: whatever a file claims to be, reading it ends, and without a panic.
// That whole files are read right is shown by test/e2e.TestDamage.
func FuzzRead(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("Subject: no compound file\r\n\r\n"))
	f.Add(append([]byte{0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1}, make([]byte, 1024)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Read(bytes.NewReader(b))
		if (got == nil) == (err == nil) {
			t.Errorf("neither a file nor an error, or both: %v, %v", got, err)
		}
	})
}
