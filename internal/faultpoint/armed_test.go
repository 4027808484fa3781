//go:build faultpoint

package faultpoint_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mailhaul/pipeline/internal/faultpoint"
)

// childVariable tells a child process to pass points, and no more.
const childVariable = "FAULTPOINT_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		for range 3 {
			faultpoint.Hit("a")
			fmt.Print("a")
			faultpoint.Hit("b")
			fmt.Print("b")
		}
		fmt.Print(faultpoint.EpochItems(4096))
		return
	}
	os.Exit(m.Run())
}

// run passes a, b, a, b, a, b in a process, and returns how far it came.
func run(t *testing.T, env ...string) (passed string, killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, childVariable+"=1")...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), false
}

func TestHit(t *testing.T) {
	t.Parallel()
	self := filepath.Base(os.Args[0])
	tests := []struct {
		name, where, passed string
		killed              bool
	}{
		{"nowhere", "", "ababab4096", false},
		{"the first time", self + ":a", "", true},
		{"the second time", self + ":a=2", "ab", true},
		{"the last time", self + ":b=3", "ababa", true},
		{"more often than it passes", self + ":b=4", "ababab4096", false},
		{"a point that isn't there", self + ":c", "ababab4096", false},
		{"another executable", "x" + self + ":a", "ababab4096", false},
		{"a pattern of executables", "fault*:b", "a", true},
		{"a number that isn't one is the first time", self + ":a=x", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if passed, killed := run(t, faultpoint.Variable+"="+tt.where); passed != tt.passed || killed != tt.killed {
				t.Errorf("came to %q, killed %v; want %q, %v", passed, killed, tt.passed, tt.killed)
			}
		})
	}
}

// TestOnce kills the first of two processes only.
func TestOnce(t *testing.T) {
	t.Parallel()
	env := []string{faultpoint.Variable + "=*:b", faultpoint.VariableOnce + "=" + filepath.Join(t.TempDir(), "died")}
	for i, want := range []bool{true, false} {
		if passed, killed := run(t, env...); killed != want {
			t.Errorf("process %d came to %q, killed %v", i, passed, killed)
		}
	}
}

func TestEpochItems(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{"5": "5", "0": "4096", "-1": "4096", "x": "4096"} {
		if passed, _ := run(t, faultpoint.VariableEpoch+"="+value); !strings.HasSuffix(passed, "b"+want) {
			t.Errorf("%s: %q", value, passed)
		}
	}
}

func TestEnviron(t *testing.T) {
	t.Setenv(faultpoint.Variable, "x:a")
	if got := faultpoint.Environ(); !slices.Contains(got, faultpoint.Variable+"=x:a") {
		t.Errorf("got %q", got)
	}
}
