package pluginhost

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// maxSocketPath is what fits into sockaddr_un on every system (108 on Linux,
// 104 on macOS, with the final NUL).
const maxSocketPath = 103

// socketName is about the longest that go-plugin appends to the folder:
// /plugin-dir0123456789/plugin0123456789.
const socketName = 1 + 20 + 1 + 16

const socketPrefix = "mailhaul-"

// socketDir makes a private folder for sockets with a short path, and removes
// those of hosts that were killed.
func socketDir(base string) (string, error) {
	bases := []string{base}
	if base == "" {
		bases = []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"}
	}
	var tried []string
	for _, b := range bases {
		if b == "" {
			continue
		}
		b, err := filepath.Abs(b)
		if err != nil {
			return "", fault.Wrap(fault.Config, err, "make a folder for sockets")
		}
		sweep(b)
		dir, err := os.MkdirTemp(b, fmt.Sprintf("%s%d-", socketPrefix, os.Getpid())) // 0700
		if err != nil {
			tried = append(tried, err.Error())
			continue
		}
		if len(dir)+socketName <= maxSocketPath {
			return dir, nil
		}
		os.Remove(dir)
		tried = append(tried, fmt.Sprintf("the path of a socket in %s would be longer than %d octets", b, maxSocketPath))
	}
	return "", fault.New(fault.Config, "make a folder for the plugins' sockets: %s", strings.Join(tried, "; ")).
		WithHint("set TMPDIR to a writable folder with a short path")
}

// sweep removes folders of sockets whose host is gone. What can't be removed
// is another user's.
func sweep(base string) {
	old, _ := filepath.Glob(filepath.Join(base, socketPrefix+"*-*")) // the pattern is well-formed
	for _, dir := range old {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), socketPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && n > 0 && !alive(n) {
			_ = os.RemoveAll(dir)
		}
	}
}
