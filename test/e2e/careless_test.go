package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSecretsOfACarelessPlugin: a plugin dies, with all that it was told in the
// reason and in the stacks, or says so in a panic that is caught. Neither the
// terminal, nor events, log, report or ledger tell it on, and no core file holds
// it, though the user's shell allows them (I9).
func TestSecretsOfACarelessPlugin(t *testing.T) {
	t.Parallel()
	for secret, value := range map[string]string{
		"one line":      canary,
		"several lines": "{\n  \"type\": \"account\",\n  \"key\": \"c4näry\",\n\tb1rd\n\n    and it s1ngs\n}",
	} {
		for _, do := range []string{
			"panic in a call", "panic with the config", "panic beside", "panic with an error", "panic with a struct", "panic at length", "fault",
		} {
			if secret != "one line" && do != "panic beside" && do != "panic with an error" {
				continue // the others differ in nothing for it
			}
			t.Run(do+", "+secret, func(t *testing.T) {
				t.Parallel()
				j := newJob(t, fmt.Sprintf(`version: 1
name: careless
state: state
sources:
  - {name: alice, plugin: careless, config: {password: "${env:PASSWORD}", do: %q}}
sinks:
  - {name: archive, plugin: eml, config: {path: out/eml}}
%s`, do, lastSong))
				// A shell lets the command leave core files, and Go is told to.
				shell := j.path("shell")
				if err := os.WriteFile(shell, []byte("#!/bin/sh\nulimit -c unlimited 2>/dev/null\nexec \"$@\"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
				j.env = append(j.env, "PASSWORD="+value, "GOTRACEBACK=crash", "PIPELINE_PLUGIN_PATH="+j.bin.third)
				commands := [][]string{{"run", "--debug"}}
				if do == "panic beside" {
					commands = append(commands, []string{"run", "--json", "--debug"})
				}
				for _, args := range commands {
					o := j.startBy(shell, args...).wait()
					if o.code != 4 {
						t.Errorf("pipeline %v: exit code %d, want 4", args, o.code)
					}
					silent(t, fmt.Sprint("pipeline ", args), o.out+o.err)
					if len(args) == 2 {
						needs(t, o.err, "error: ", "plugin careless", "hint: ")
						if do != "fault" && do != "panic at length" && do != "panic with a struct" {
							needs(t, o.err, "(secret)")
						}
						if do != "panic in a call" {
							needs(t, o.err, "goroutine ") // the dump is in the log
						}
					}
				}
				silentTree(t, j)
				if left, err := filepath.Glob(j.path("core*")); err != nil || len(left) > 0 {
					t.Errorf("core files are left: %v, %v", left, err)
				}
			})
		}
	}
}

// wantNoCore looks at the limits of a process, as /proc tells them.
func wantNoCore(t *testing.T, name string, limits []byte) {
	t.Helper()
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			// Of one octet none is written, and no handler of cores is called either.
			if f := strings.Fields(rest); f[0] != f[1] || f[0] != "1" && f[0] != "0" {
				t.Errorf("%s may leave a core: %s", name, line)
			}
			return
		}
	}
	t.Errorf("the limits of %s say nothing of cores:\n%s", name, limits)
}
