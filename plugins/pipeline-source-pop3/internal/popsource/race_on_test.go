//go:build race

package popsource

// memoryLimit is the most resident memory of the process that fetches, in KiB.
// The race detector's own memory comes on top of the 100 MiB.
const memoryLimit = 300 << 10
