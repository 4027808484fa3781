// Package cost keeps what a message costs from growing unseen. It counts what
// is the same on every machine: allocations, system calls, octets on the wire,
// commands; never seconds. Each package that measures has a golden file, which
// -update writes anew: an improvement that is recorded can't be lost again.
package cost

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Count is something that was counted.
type Count struct {
	Name  string  // what and per what, as in "allocations a message, engine"; no tab
	Got   float64 // this time
	Slack float64 // how much more than recorded is let pass, as a part of it: 0.02
	Plus  float64 // and in absolute numbers, for what is small or depends on timing
}

// Allocations returns how many allocations f makes a message, of the n that
// it handles. Nothing else of the process should allocate meanwhile: it isn't
// for parallel tests, and refuses them.
func Allocations(n int, f func()) float64 { return testing.AllocsPerRun(1, f) / float64(n) }

// Hold holds counts against those that are recorded in a golden file, a name
// and a number a line, and fails the test with each that grew. What is recorded
// and wasn't counted this time is a failure too. With update the file is
// written anew.
func Hold(t *testing.T, file string, update bool, counts ...Count) {
	t.Helper()
	if update {
		if err := write(file, counts); err != nil {
			t.Fatal(err)
		}
		return
	}
	recorded, err := read(file)
	if err != nil {
		t.Fatalf("%v; record the counts: go test -run '^%s$' -update", err, t.Name())
	}
	for _, said := range compare(recorded, counts, t.Name()) {
		t.Error(said)
	}
	for _, c := range counts {
		t.Logf("%s: %.2f, recorded %.2f", c.Name, c.Got, recorded[c.Name])
	}
}

// compare says what grew, in words for whoever made it grow.
func compare(recorded map[string]float64, counts []Count, test string) (out []string) {
	counted := map[string]bool{}
	for _, c := range counts {
		counted[c.Name] = true
		was, ok := recorded[c.Name]
		most := was*(1+c.Slack) + c.Plus
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s isn't recorded: go test -run '^%s$' -update", c.Name, test))
		case c.Got > most:
			out = append(out, fmt.Sprintf("%s grew from %.2f to %.2f, and %.2f is the most: find out why; where it is worth it, record it with go test -run '^%s$' -update, and say why in the commit",
				c.Name, was, c.Got, most, test))
		}
	}
	for name := range recorded {
		if !counted[name] {
			out = append(out, fmt.Sprintf("%s is recorded and isn't counted any more: go test -run '^%s$' -update", name, test))
		}
	}
	slices.Sort(out)
	return out
}

func read(file string) (map[string]float64, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]float64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, number, ok := strings.Cut(lines.Text(), "\t")
		n, err := strconv.ParseFloat(number, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("%s: %q isn't a name, a tab and a number", file, lines.Text())
		}
		out[name] = n
	}
	return out, nil
}

func write(file string, counts []Count) error {
	var b strings.Builder
	for _, c := range counts {
		fmt.Fprintf(&b, "%s\t%.2f\n", c.Name, c.Got)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(b.String()), 0o600)
}
