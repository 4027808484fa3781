//go:build !race

package popsource

// memoryLimit is the most resident memory of the process that fetches, in KiB.
const memoryLimit = 100 << 10
