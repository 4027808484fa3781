package e2e

import (
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

var metricsLine = regexp.MustCompile(`(?m)^metrics at (http://\S+)/metrics$`)

// get asks a command under way, and returns "" as long as it doesn't answer.
func get(url string) string {
	r, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return ""
	}
	return r.Status + "\n" + string(b)
}

// TestMetrics asks a run in its middle, after its source died once.
func TestMetrics(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	m := newMidway(t, 1)
	o := m.run(2, "run", "--metrics", taken.Addr().String())
	oneClearError(t, o, "give another port", "serve metrics", taken.Addr().String(), "address already in use")

	m = newMidway(t, few)
	r := m.start("run", "--metrics", "127.0.0.1:0")
	var address string
	until(t, "a run in its middle, and its address", func() bool {
		if line := metricsLine.FindStringSubmatch(r.err.String()); line != nil {
			address = line[1]
		}
		return address != "" && m.held.Load()
	})
	if text := get(address + "/healthz"); text != "200 OK\nok\n" {
		t.Errorf("/healthz: %s", text)
	}
	until(t, "an account at work", func() bool {
		return strings.Contains(get(address+"/metrics"), `mailhaul_accounts{state="working"} 1`)
	})
	r.kill("pipeline-source-imap")
	until(t, "its death is counted", func() bool {
		return strings.Contains(get(address+"/metrics"), `mailhaul_errors_total{class="crashed"} 1`)
	})
	until(t, "it is started again", func() bool {
		return strings.Contains(get(address+"/metrics"), `mailhaul_plugin_restarts_total{kind="source",plugin="imap"} 1`)
	})
	m.release()
	if o := r.wait(); o.code != 0 {
		t.Fatalf("%s", o)
	}
	holds(t, m.job, m.server, few)
}
