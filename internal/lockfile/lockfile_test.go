package lockfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/lockfile"
	"github.com/mailhaul/pipeline/pkg/fault"
)

var sum = strings.Repeat("ab", 32)

func TestWriteAndRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if pins, err := lockfile.Read(dir); pins != nil || err != nil {
		t.Errorf("without a file: %v, %v", pins, err)
	}
	eml, imap := lockfile.Pin{Kind: "sink", Name: "eml", Version: "1.0.0", SHA256: sum}, lockfile.Pin{Kind: "source", Name: "imap", Version: "0.1.0", SHA256: sum}
	for range 2 { // the second time it is replaced
		if err := lockfile.Write(dir, []lockfile.Pin{imap, eml}); err != nil {
			t.Fatal(err)
		}
	}
	pins, err := lockfile.Read(dir)
	if d := cmp.Diff([]lockfile.Pin{eml, imap}, pins); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A lock that can't be understood isn't one that is passed over.
func TestMistakes(t *testing.T) {
	t.Parallel()
	pin := "version: 1\nplugins:\n  - {kind: sink, name: eml, version: 1.0.0, sha256: " + sum + "}\n"
	tests := map[string]string{
		"version: 2\nplugins: []\n":                             "of version 2",
		"plugin: []\n":                                          "field plugin not found",
		strings.Replace(pin, sum, "1234", 1):                    "not 64 digits",
		strings.Replace(pin, "sink", "drain", 1):                `of the kind "drain"`,
		pin + strings.TrimPrefix(pin, "version: 1\nplugins:\n"): "twice",
		strings.Replace(pin, "name: eml", "name: ''", 1):        `the name ""`,
		"- not\n- a mapping\n":                                  "cannot unmarshal",
		"":                                                      "EOF",
	}
	for text, want := range tests {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, lockfile.Name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := lockfile.Read(dir)
			if !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), want) || fault.As(err).Hint == "" {
				t.Errorf("%v, want Config with a hint, and %q", err, want)
			}
		})
	}
}

func TestAnEmptyLockLetsNothingPass(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := lockfile.Write(dir, nil); err != nil {
		t.Fatal(err)
	}
	if pins, err := lockfile.Read(dir); pins == nil || err != nil {
		t.Errorf("%v, %v", pins, err)
	}
}
