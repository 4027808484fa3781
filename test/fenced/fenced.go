// Package fenced compares what workers left in a bucket, whose names carry
// fences, with what one run leaves.
package fenced

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mark is a fence behind the hash of an id, as pkg/naming puts it there.
var mark = regexp.MustCompile(`([a-z2-7]{10})~[0-9a-z]+~?`)

// Plain returns a text without the fences that stand in it.
func Plain(text string) string { return mark.ReplaceAllString(text, "$1") }

// Output returns the digests of the files below a folder, by their names
// without fences, books left out: of an index those of its lines, in any order
// and without fences. Two files that differ in their fences alone are an error.
func Output(t testing.TB, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".mailhaul" || d.Name() == ".sgwtmp" {
				return fs.SkipDir
			}
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".jsonl") {
			lines := strings.SplitAfter(Plain(string(b)), "\n")
			slices.Sort(lines)
			b = []byte(strings.Join(lines, ""))
		}
		sum := sha256.Sum256(b)
		name := Plain(filepath.ToSlash(strings.TrimPrefix(path, root)))
		if _, twice := out[name]; twice {
			t.Errorf("%s is there under two fences", name)
		}
		out[name] = hex.EncodeToString(sum[:])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Equal holds what workers left against what one run left, both as Output
// returns them.
func Equal(t testing.TB, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch sum, ok := got[name]; {
		case !ok:
			t.Errorf("%s is missing", name)
		case sum != want[name]:
			t.Errorf("%s isn't what one run leaves", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s shouldn't be there", name)
		}
	}
}
