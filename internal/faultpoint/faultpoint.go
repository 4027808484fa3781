//go:build !faultpoint

// Package faultpoint names places on the data path where the crash tests kill
// a process. In an ordinary build a point costs nothing; built with the tag
// faultpoint, a process kills itself with SIGKILL when it passes the point
// that its environment names.
package faultpoint

// Hit does nothing in this build.
func Hit(string) {}

// EpochItems returns usual, in this build.
func EpochItems(usual int) int { return usual }

// Environ returns what of the environment a child process needs: nothing in
// this build.
func Environ() []string { return nil }
