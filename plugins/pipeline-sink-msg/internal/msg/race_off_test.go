//go:build !race

package msg_test

// underRace says that the race detector is in: what is large and finds no race
// is left to the plain run of the same tests.
const underRace = false
