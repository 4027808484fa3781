package crash

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/test/program"
)

// crashes and mixedCrashes are how many pipelines are killed at random unless
// the environment says otherwise.
const (
	crashes         = 100
	mixedCrashes    = 4
	crashesVariable = "MAILHAUL_CRASHES"
	seedVariable    = "MAILHAUL_CRASH_SEED"
)

// TestKilledAtRandom kills the host and the plugins at random moments, some
// of them several times, in a fresh export and in one that a sink is added to.
// MAILHAUL_CRASH_SEED chooses the moments, as far as a machine can be told.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	made.killAtRandom(t, crashes, half)
}

// TestMixedKilledAtRandom does so with both protocols and all file formats.
// MAILHAUL_CRASHES says how often.
func TestMixedKilledAtRandom(t *testing.T) {
	t.Parallel()
	s := mixed(t)
	s.killAtRandom(t, number(t, crashesVariable, mixedCrashes), strings.Replace(s.file, mixedMSG, "", 1))
}

// killAtRandom kills processes of n pipelines; a third of them have been
// through a run of an earlier version of the file.
func (s *scenario) killAtRandom(t *testing.T, n int, earlier string) {
	seed := number(t, seedVariable, rand.IntN(1<<30))
	t.Logf("%s=%d", seedVariable, seed)
	fresh, e := s.reference(t)
	added, _ := s.reference(t, earlier)
	killed := make([]int, n)
	t.Run("", func(t *testing.T) {
		for i := range n {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(uint64(seed), uint64(i)))
				p := s.pipeline(t)
				want := fresh
				if r.IntN(3) == 0 {
					p.before(earlier)
					want = added
				}
				killed[i] = p.disturb(r, e.took)
				p.wantWhole(p.run(nil))
				if p.settleKillers() {
					p.wantOctets(want)
				} else {
					p.wantSame(want)
				}
				p.wantNothingToDo()
			})
		}
	})
	total := 0
	for _, k := range killed {
		total += k
	}
	t.Logf("%d processes were killed in %d pipelines; an undisturbed run takes %v", total, n, e.took)
	if total < n/2 {
		t.Errorf("only %d processes were killed in %d pipelines: the test tried little", total, n)
	}
}

func number(t *testing.T, variable string, usual int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is no number", variable, text)
	}
	return n
}

// disturb runs the pipeline and kills processes of it, and reports how many.
// When the host survives, the run must be whole.
func (p *pipeline) disturb(r *rand.Rand, took time.Duration) (killed int) {
	p.t.Helper()
	for range 1 + r.IntN(2) {
		run := p.start(nil)
		for range 1 + r.IntN(2) {
			time.Sleep(time.Duration(r.Int64N(int64(took) * 8 / 10)))
			if r.IntN(2) == 0 {
				_ = run.cmd.Process.Kill() // it may have ended
				killed++
				break
			}
			if plugins := run.plugins(); len(plugins) > 0 {
				// Gone meanwhile is gone as well.
				_ = syscall.Kill(plugins[r.IntN(len(plugins))], syscall.SIGKILL)
				killed++
			}
		}
		e := run.wait()
		if e.code != -1 {
			p.wantEnded(e)
		}
	}
	return killed
}

// wantEnded checks a run in which plugins were killed: it is whole, unless one
// died before the run had begun, while it was asked what it is.
func (p *pipeline) wantEnded(e *ended) {
	p.t.Helper()
	if e.code == engine.ExitStopped && e.report == "" {
		return
	}
	p.wantWhole(e)
}

// plugins are the processes of plugins that the run has now.
func (r *running) plugins() []int { return program.Children(r.cmd.Process.Pid) }

// settleKillers tries again what two kills made dead letters of: a message in
// hand at both is one that kills its plugin, as far as the host can tell. It
// reports whether a copy has taken the place of one of them meanwhile, which
// then is the duplicate; the sinks that have it keep it (adr/0006).
func (p *pipeline) settleKillers() (replaced bool) {
	p.t.Helper()
	var killers []string
	for name, text := range p.left() {
		if id, ok := strings.CutPrefix(name, "letter "); ok && strings.Contains(text, "Reason:kills_the_") {
			p.t.Logf("two kills met one message: %s", name)
			killers = append(killers, id[:strings.LastIndexByte(id, ' ')])
		}
	}
	if len(killers) == 0 {
		return false
	}
	p.wantWhole(p.run(nil, "--retry-failed"))
	now := p.left()
	return slices.ContainsFunc(killers, func(id string) bool { return strings.Contains(now["ledger "+id], "all: duplicate") })
}

// wantOctets wants all messages that an undisturbed run exports, under
// whatever name (I1).
func (p *pipeline) wantOctets(want left) {
	p.t.Helper()
	have := map[string]bool{}
	sum := func(text string) string { sum, _, _ := strings.Cut(text, " "); return sum }
	for name, text := range p.left() {
		if strings.HasSuffix(name, ".eml") {
			have[sum(text)] = true
		}
	}
	for name, text := range want {
		if strings.HasSuffix(name, ".eml") && !have[sum(text)] {
			p.t.Errorf("I1: the message of %s is in no file (in %s)", name, p.dir)
		}
	}
}
