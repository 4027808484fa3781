//go:build !clouds

package store_test

import "testing"

// clouds are tested where somebody has installed their emulators: make stores.
var clouds []string

func withClouds(run func() int) int { return run() }

func cloudAddress(t *testing.T, kind string) string {
	t.Helper()
	t.Fatalf("there is no server of the kind %s", kind)
	return ""
}
