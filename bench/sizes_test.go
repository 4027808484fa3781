package bench

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// sizesOf returns the numbers that an environment variable chooses, and true;
// where it is unset, those of a test of the benchmark.
func sizesOf(t *testing.T, variable string, small ...int) (sizes []int, full bool) {
	t.Helper()
	list := os.Getenv(variable)
	if list == "" {
		return small, false
	}
	for _, s := range strings.Fields(list) {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("%s: %v", variable, err)
		}
		sizes = append(sizes, n)
	}
	return sizes, true
}
