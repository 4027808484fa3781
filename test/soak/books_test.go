package soak

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sample is what there is at rest, after a round.
type sample struct {
	resident    map[string]int64 // of each process, KiB: of a lasting plugin now, of a host at its highest
	descriptors map[string]int   // of each lasting plugin
	books       map[string]int64 // octets of what pipelines keep for themselves
	exported    int              // messages
}

// books are the samples of all rounds.
type books struct{ samples []sample }

// note looks at all there is. What must be gone is waited for.
func (b *books) note(all ...*pipeline) {
	s := sample{resident: map[string]int64{}, descriptors: map[string]int{}, books: map[string]int64{}}
	for _, p := range all {
		p.rest()
		p.wantNoTemporaryFiles()
		s.resident[p.name+" host"] = p.peak
		for _, plugin := range p.lasting {
			s.resident[plugin.name], s.descriptors[plugin.name] = plugin.resident(p.t), plugin.open
		}
		for name, size := range p.tree(".pipeline") {
			s.books[p.name+" "+name] = size
		}
		for name, size := range p.tree("out") {
			if strings.HasSuffix(name, ".eml") && p == all[0] {
				s.exported++
			}
			if _, own, ok := strings.Cut(name, ".mailhaul/"); ok {
				s.books[p.name+" "+filepath.Dir(name)+" "+own] = size
			}
		}
	}
	b.samples = append(b.samples, s)
}

func (b *books) last() string {
	s := b.samples[len(b.samples)-1]
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s.resident)) {
		text := fmt.Sprintf("%s %.1f MiB", name, float64(s.resident[name])/1024)
		if n, ok := s.descriptors[name]; ok {
			text += fmt.Sprintf(" %d descriptors", n)
		}
		out = append(out, text)
	}
	for _, name := range slices.Sorted(maps.Keys(s.books)) {
		out = append(out, fmt.Sprintf("%s %d octets", name, s.books[name]))
	}
	return fmt.Sprintf("%d messages exported; %s", s.exported, strings.Join(out, ", "))
}

// What may grow, and how much: with each message the ledger, a manifest and an
// index of it. Nothing may grow with time alone but the ledger's row of a run.
const (
	perMessage = 1500    // octets of ledger and of manifests, each
	perRound   = 1500    // octets of a few runs
	ofBooks    = 1 << 18 // octets of empty books
	ofResident = 8 << 10 // KiB by which a process may differ from itself
)

// judge fails the test for what grew without a reason.
func (b *books) judge(t *testing.T) {
	t.Helper()
	t.Logf("at the end: %s", b.last())
	last := b.samples[len(b.samples)-1]
	for name, size := range last.books {
		if allowed := int64(ofBooks + perMessage*last.exported + perRound*len(b.samples)); size > allowed {
			t.Errorf("%s has %d octets after %d rounds with %d messages, more than %d", name, size, len(b.samples), last.exported, allowed)
		}
	}
	if len(last.books) > len(b.samples[0].books)+4 {
		t.Errorf("there are ever more books: %v", slices.Sorted(maps.Keys(last.books)))
	}
	if len(b.samples) < 40 {
		return // too few to tell growth from chance
	}
	// The first quarter is for warming up.
	quarter := len(b.samples) / 4
	for name := range last.resident {
		early, late := median(b.samples[quarter:2*quarter], name), median(b.samples[len(b.samples)-quarter:], name)
		t.Logf("resident size of %s: %.1f MiB in the second quarter, %.1f MiB in the last", name, float64(early)/1024, float64(late)/1024)
		if late > early+ofResident && late > early*5/4 {
			t.Errorf("%s grew from %d to %d KiB", name, early, late)
		}
	}
}

func median(samples []sample, name string) int64 {
	var all []int64
	for _, s := range samples {
		all = append(all, s.resident[name])
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// processes are those that run one of the pipeline's executables, but for its
// lasting plugins.
func (p *pipeline) processes() (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is well-formed
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || filepath.Dir(exe) != p.path("bin") {
			continue // it has ended, or isn't ours
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			p.t.Fatal(err)
		}
		if !slices.ContainsFunc(p.lasting, func(s *serving) bool { return s.cmd.Process.Pid == pid }) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// rest waits until all that a run started has ended, and the lasting plugins
// have closed all that they opened for it.
func (p *pipeline) rest() {
	p.t.Helper()
	var left []int
	if !soon(func() bool { left = p.processes(); return len(left) == 0 }) {
		p.t.Fatalf("%s: processes are left: %v", p.name, left)
	}
	for _, s := range p.lasting {
		s.rest(p.t)
	}
}

// wantNoTemporaryFiles checks that an undisturbed run leaves none, not even
// those of a killed one before it.
func (p *pipeline) wantNoTemporaryFiles() {
	p.t.Helper()
	if left := p.tree("tmp"); len(left) > 0 {
		p.t.Errorf("%s: temporary files are left: %v", p.name, slices.Sorted(maps.Keys(left)))
	}
	entries, err := os.ReadDir(p.path("tmp"))
	if err != nil {
		p.t.Fatal(err)
	}
	if len(entries) > 0 {
		p.t.Errorf("%s: temporary folders are left: %v", p.name, entries)
	}
}

// mostOthers is how many descriptors a plugin may have that are no sockets: its
// standard ones, and the runtime's.
const mostOthers = 12

// rest waits until a plugin has no sockets open but those that it began with.
func (s *serving) rest(t *testing.T) {
	t.Helper()
	var sockets int
	var all []string
	if !soon(func() bool {
		sockets, all = s.descriptors(t)
		return sockets <= s.sockets && len(all)-sockets <= mostOthers
	}) {
		t.Errorf("%s has descriptors open at rest, and had %d sockets in the beginning: %v", s.name, s.sockets, all)
	}
	s.open = len(all)
}

// descriptors returns what is open, and how many of it are sockets.
func (s *serving) descriptors(t *testing.T) (sockets int, all []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatalf("%s: %v\n%s", s.name, err, s.errs.String())
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // it is closed meanwhile
		}
		all = append(all, to)
		if strings.HasPrefix(to, "socket:") {
			sockets++
		}
	}
	return sockets, all
}

// resident returns the size in memory, in KiB.
func (s *serving) resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("%s: %v\n%s", s.name, err, s.errs.String())
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize()) / 1024
}

// soon waits for a condition, and reports whether it came.
func soon(f func() bool) bool {
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// restingGoroutines is how many a plugin may have at rest, when no host is
// there: its listener, its signals, the runtime's.
const restingGoroutines = 6

// dump ends the lasting plugins with a list of their goroutines: a session
// that isn't over has some.
func (p *pipeline) dump() {
	p.t.Helper()
	for _, s := range p.lasting {
		if err := s.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
			p.t.Fatal(err)
		}
		_ = s.cmd.Wait() // it says exit status 2
		text := s.errs.String()
		n := strings.Count(text, "\ncreated by ") - strings.Count(text, "\ncreated by runtime.")
		p.t.Logf("%s has %d goroutines at rest", s.name, n)
		if !strings.Contains(text, "goroutine 1 ") || n > restingGoroutines {
			p.t.Errorf("%s has %d goroutines at rest, want at most %d:\n%.20000s", s.name, n, restingGoroutines, text)
		}
	}
}
