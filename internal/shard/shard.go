// Package shard divides the accounts of a pipeline among processes that know
// nothing of each other: each takes those whose names fall to it.
package shard

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Most is how many shards there may be.
const Most = 10_000

// Shard is one of Count equal parts of a pipeline's accounts. The zero Shard
// has all of them.
type Shard struct {
	Index int // from 0
	Count int // 0: the pipeline isn't divided
}

// Parse reads a shard as in "0/3": the first of three. They are counted from 0,
// as Kubernetes counts the pods of an indexed Job. An empty text is the zero
// Shard. The error is of class Config.
func Parse(text string) (Shard, error) {
	if text == "" {
		return Shard{}, nil
	}
	index, count, ok := strings.Cut(text, "/")
	i, ierr := strconv.Atoi(index)
	n, nerr := strconv.Atoi(count)
	switch {
	case !ok || ierr != nil || nerr != nil:
		return Shard{}, fault.New(fault.Config, "--shard %s: expected a shard and how many there are, as in 0/3", text)
	case n < 1 || n > Most:
		return Shard{}, fault.New(fault.Config, "--shard %s: expected 1 to %d shards", text, Most)
	case i < 0 || i >= n:
		return Shard{}, fault.New(fault.Config, "--shard %s: there is no such shard", text).
			WithHint("they are counted from 0: %d/%d to %d/%d", 0, n, n-1, n)
	}
	return Shard{i, n}, nil
}

// Divides reports whether this is a part, not all.
func (s Shard) Divides() bool { return s.Count > 0 }

// String returns the shard as Parse reads it, empty for the zero Shard.
func (s Shard) String() string {
	if !s.Divides() {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.Index, s.Count)
}

// Name returns the shard as it stands in paths: "0-of-3"; empty for the zero
// Shard.
func (s Shard) Name() string {
	if !s.Divides() {
		return ""
	}
	return fmt.Sprintf("%d-of-%d", s.Index, s.Count)
}

// Has reports whether the account of that name falls to the shard.
func (s Shard) Has(account string) bool { return !s.Divides() || Of(account, s.Count).Index == s.Index }

// Of returns the shard, of so many, to which the account of that name falls:
// the first eight octets of its SHA-256, as a big-endian number, modulo count.
// This never changes: an account that moved would be exported again.
func Of(account string, count int) Shard {
	sum := sha256.Sum256([]byte(account))
	return Shard{int(binary.BigEndian.Uint64(sum[:8]) % uint64(count)), count}
}

// folder is how the folder of a shard's state begins.
const folder = "shard-"

// State returns the folder of the shard's own state, in that of the pipeline;
// the zero Shard's is that one.
func (s Shard) State(dir string) string {
	if !s.Divides() {
		return dir
	}
	return filepath.Join(dir, folder+s.Name())
}

// InFile puts the shard's name into a file's: "last.json" becomes
// "last.0-of-3.json". An empty path stays empty.
func (s Shard) InFile(path string) string {
	if path == "" || !s.Divides() {
		return path
	}
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + "." + s.Name() + ext
}

// Check returns an error of class Config when the pipeline of that name, whose
// state is in dir, was divided otherwise before: its accounts would fall to
// others, who know nothing of what is done, and would be exported again (I2).
func (s Shard) Check(dir, pipeline string) error {
	counts, err := found(dir, pipeline)
	if err != nil || len(counts) == 0 || slices.Contains(counts, s.Count) {
		return err
	}
	old, way := "whole", "without --shard"
	if n := counts[0]; n > 0 {
		old, way = fmt.Sprintf("in %d shards", n), fmt.Sprintf("with --shard 0/%d to %d/%d", n, n-1, n)
	}
	return fault.New(fault.Config, "pipeline %s was run %s until now (%s): divided otherwise, its accounts would be exported again", pipeline, old, dir).
		WithKey("state").WithHint("go on %s; or begin anew, with another state and other paths", way)
}

// found returns into how many shards the pipeline was divided, by the ledgers
// that are there; 0 is one that isn't divided.
func found(dir, pipeline string) ([]int, error) {
	var counts []int
	ledger := pipeline + ".db"
	if _, err := os.Stat(filepath.Join(dir, ledger)); err == nil {
		counts = append(counts, 0)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, fault.Wrap(fault.Config, err, "look for the state of other shards").(*fault.Error).
			WithKey("state").WithHint("name a directory that can be written to with `state:`")
	}
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), folder)
		_, n, two := strings.Cut(name, "-of-")
		count, err := strconv.Atoi(n)
		if !ok || !two || err != nil || slices.Contains(counts, count) {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, e.Name(), ledger)); err == nil {
			counts = append(counts, count)
		}
	}
	return counts, nil
}
