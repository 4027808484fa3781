package cost

import (
	"runtime"
	"strconv"
	"strings"
)

// Parses returns how often f has a message read for its MIME structure in this
// process: how many roots of structures pkg/message makes, as the runtime's own
// profile of allocations has them. Like Allocations it isn't for parallel tests.
func Parses(f func()) int64 {
	rate := runtime.MemProfileRate
	runtime.MemProfileRate = 1 // every allocation; it takes effect with the next one
	defer func() { runtime.MemProfileRate = rate }()
	before := roots()
	f()
	return roots() - before
}

// Where the tree of a message is read, by the function, and what calls it for
// the root alone.
const (
	readsPart = "github.com/mailhaul/pipeline/pkg/message.(*scanner).entity"
	readsRoot = "github.com/mailhaul/pipeline/pkg/message.scan"
)

// roots counts the parts that were ever made for roots. A root allocates other
// things too, each at a place of its own; only its part is made exactly once
// every time, and nothing at another place is made more often.
func roots() (most int64) {
	runtime.GC() // the profile is as of the last collection but one
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 1024)
	for {
		n, ok := runtime.MemProfile(records, true)
		if ok {
			records = records[:n]
			break
		}
		records = make([]runtime.MemProfileRecord, n+1024)
	}
	places := map[string]int64{}
	for i := range records {
		if place := atRoot(records[i].Stack()); place != "" {
			places[place] += records[i].AllocObjects
		}
	}
	for _, n := range places {
		most = max(most, n)
	}
	return most
}

// atRoot returns the line at which the root of a structure allocates; empty for
// any other allocation.
func atRoot(stack []uintptr) string {
	frames := runtime.CallersFrames(stack)
	for {
		at, more := frames.Next()
		switch {
		case strings.HasPrefix(at.Function, "runtime.") && more:
			continue
		case at.Function != readsPart || !more:
			return ""
		}
		by, _ := frames.Next()
		if by.Function != readsRoot {
			return ""
		}
		return strconv.Itoa(at.Line)
	}
}
