//go:build race

package plugintest

// raced: the race detector holds memory of its own, in the plugin too when it
// is this executable.
const raced = true
