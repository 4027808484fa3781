//go:build clock

package crash

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/test/program"
)

// clockShim makes the wall clock of a process leap by the seconds of the
// environment once time.Now has been called so often. The monotonic clock goes
// on, as it does when somebody sets the time of a machine.
const clockShim = `package time

import (
	"sync/atomic"
	"syscall"
)

var clockCalls, clockAfter, clockBy = func() (calls *atomic.Int64, after, by int64) {
	number := func(name string) (n int64) {
		text, _ := syscall.Getenv(name)
		sign := int64(1)
		for i := 0; i < len(text); i++ {
			if text[i] == '-' {
				sign = -1
			} else {
				n = n*10 + int64(text[i]-'0')
			}
		}
		return n * sign
	}
	return new(atomic.Int64), number("MAILHAUL_CLOCK_AFTER"), number("MAILHAUL_CLOCK_BY")
}()

func leaping() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	if clockBy != 0 && clockCalls.Add(1) > clockAfter {
		sec += clockBy
	}
	return sec, nsec, mono
}
`

// buildClock builds the host with a time package whose clock leaps; its plugins
// are those of the other tests.
func buildClock(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const now = "sec, nsec, mono := runtimeNow()"
	if bytes.Count(text, []byte(now)) != 1 {
		t.Fatalf("%s isn't as this test knows it: there is no single %q", source, now)
	}
	overlay := map[string]string{
		source: filepath.Join(dir, "time.go"),
		filepath.Join(filepath.Dir(source), "leaping.go"): filepath.Join(dir, "leaping.go"),
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"time.go": bytes.Replace(text, []byte(now), []byte("sec, nsec, mono := leaping()"), 1), "leaping.go": []byte(clockShim), "overlay.json": list,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err = program.Build{To: dir, Flags: []string{"-tags", "faultpoint", "-overlay", filepath.Join(dir, "overlay.json")}}.Run(
		"./cmd/pipeline", "./plugins/pipeline-sink-eml", "./plugins/pipeline-sink-msg", "./plugins/pipeline-sink-json",
		"./plugins/pipeline-source-imap", "./plugins/pipeline-source-pop3")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMixedClockLeaps has the wall clock of the host leap in mid-run, by a day
// or ten years, forwards and backwards, early and late; and stand wrong from the
// start. What is written is what an undisturbed run writes. The plugins get
// another environment: their clocks stay.
func TestMixedClockLeaps(t *testing.T) {
	s := mixed(t)
	want, _ := s.reference(t)
	dir := buildClock(t)
	for _, by := range []string{"86400", "-86400", "315360000", "-315360000"} {
		for _, after := range []string{"0", "50", "200", "500"} {
			t.Run(by+" after "+after, func(t *testing.T) {
				t.Parallel()
				p := s.pipeline(t)
				p.binaries = dir
				e := p.run([]string{"MAILHAUL_CLOCK_AFTER=" + after, "MAILHAUL_CLOCK_BY=" + by})
				if strings.Contains(e.errors, "error: ") {
					t.Errorf("a clock is no error: %s", e)
				}
				p.wantWhole(e)
				p.wantSame(want)
				p.binaries = binaries
				p.wantWhole(p.run(nil))
				p.wantSame(want)
				p.wantNothingToDo()
			})
		}
	}
}
