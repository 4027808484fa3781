package e2e

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite" // the ledger's

	"github.com/mailhaul/pipeline/test/dovecot"
)

// export is a finished export of one account, with all that proves it, and a
// copy of it to go back to.
type export struct {
	*job
	server *dovecot.Server
	dirs   map[string]string // of all that a run leaves, by their names
	copy   string
}

// newExport exports ten messages in two runs to all sinks, with custody.
func newExport(t *testing.T) *export {
	t.Helper()
	return exportTo(t, func(address string) *job {
		return newJob(t, file{address: address, sinks: "  - {name: outlook, plugin: msg, config: {path: export/msg}}\n"}.String()+
			"custody: {path: export/custody, manifest: [sha256, md5], sign: {ssh_key: key}}\n")
	}, func(j *job) map[string]string {
		return map[string]string{"export": j.path("export"), "state": j.path("state")}
	})
}

// exportTo is newExport for the pipeline that make makes of a server's address.
func exportTo(t *testing.T, make func(address string) *job, dirs func(*job) map[string]string) *export {
	t.Helper()
	server := dovecot.Start(t, dovecot.Options{Users: []string{"alice"}})
	deliver := func(mailbox string, subjects ...string) {
		for i, s := range subjects {
			raw := fmt.Sprintf("From: Ann <ann@x.test>\r\nTo: b@x.test\r\nSubject: %s\r\nMessage-ID: <%s@x.test>\r\nDate: Sat, 31 Oct 2026 10:0%d:00 +0100\r\nMIME-Version: 1.0\r\n"+
				"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nthis is %s\r\n--b\r\n"+
				"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=%s.bin\r\n\r\nthe file of %s\r\n--b--\r\n", s, s, i, s, s, s)
			server.Deliver("alice", mailbox, []byte(raw), time.Date(2026, 10, 31, 9, i, 0, 0, time.UTC))
		}
	}
	deliver("INBOX", "one", "two", "three", "four", "five")
	deliver("Work", "six", "seven")
	deliver("Old", "eight", "nine")
	j := make(server.IMAP)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", j.path("key")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen (.ci/install-deps installs it): %v\n%s", err, out)
	}
	j.run(0, "run")
	deliver("INBOX", "ten")
	j.run(0, "run")
	e := &export{job: j, server: server, dirs: dirs(j), copy: t.TempDir()}
	for name, dir := range e.dirs {
		e.cp(dir, filepath.Join(e.copy, name))
	}
	return e
}

func (e *export) cp(from, to string) {
	e.t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		e.t.Fatalf("%v: %s", err, out)
	}
}

// restore brings back the export as it was.
func (e *export) restore() {
	e.t.Helper()
	for name, dir := range e.dirs {
		if err := os.RemoveAll(dir); err != nil {
			e.t.Fatal(err)
		}
		e.cp(filepath.Join(e.copy, name), dir)
	}
}

// file returns the one file of a sink whose name has the word.
func (e *export) file(sink, word string) string {
	e.t.Helper()
	var found []string
	err := filepath.WalkDir(e.path("export", sink), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(d.Name(), "-"+word+"-") {
			found = append(found, path)
		}
		return err
	})
	if err != nil || len(found) != 1 {
		e.t.Fatalf("files of %s in %s: %v, %v", word, sink, found, err)
	}
	return found[0]
}

// change rewrites a file.
func (e *export) change(path string, f func([]byte) []byte) {
	e.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		e.t.Fatal(err)
	}
	after := f(bytes.Clone(b))
	if bytes.Equal(b, after) {
		e.t.Fatalf("nothing changed in %s", path)
	}
	if err := os.WriteFile(path, after, 0o644); err != nil {
		e.t.Fatal(err)
	}
}

// line rewrites the one line of a file that has the word; an empty result
// takes it out.
func (e *export) line(path, word string, f func(string) string) {
	e.t.Helper()
	e.change(path, func(b []byte) []byte {
		var out strings.Builder
		n := 0
		for l := range strings.Lines(string(b)) {
			if strings.Contains(l, word) {
				n++
				l = f(l)
			}
			out.WriteString(l)
		}
		if n != 1 {
			e.t.Fatalf("%d lines of %s have %q", n, path, word)
		}
		return []byte(out.String())
	})
}

func (e *export) remove(path string) {
	e.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		e.t.Fatal(err)
	}
}

// ledger changes the ledger's file, and takes away the seal, which would tell.
func (e *export) ledger(query string, args ...any) {
	e.t.Helper()
	db, err := sql.Open("sqlite", e.path("state", "mail.db"))
	if err != nil {
		e.t.Fatal(err)
	}
	defer db.Close()
	r, err := db.Exec(query, args...)
	if err != nil {
		e.t.Fatal(err)
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		e.t.Fatalf("%s: %d rows, %v", query, n, err)
	}
	e.remove(e.path("state", "mail.db.sum"))
}

// verify returns the findings in short: what, where, in which sink, of which
// message.
func (e *export) verify(args ...string) []string {
	e.t.Helper()
	o := e.start(append([]string{"verify", "--json"}, args...)...).wait()
	var r struct {
		Findings []struct{ Kind, Place, Sink, Mailbox, Subject, ID, Path, Text string }
	}
	if err := json.Unmarshal([]byte(o.out), &r); err != nil {
		e.t.Fatalf("%v: %s", err, o)
	}
	if want := min(1, len(r.Findings)); o.code != want {
		e.t.Errorf("exit code %d, want %d: %s", o.code, want, o)
	}
	out := []string{}
	for _, f := range r.Findings {
		what := f.Subject
		if what == "" && f.ID == "" {
			what = f.Mailbox
		}
		out = append(out, strings.Join(strings.Fields(strings.Join([]string{f.Kind, f.Place, f.Sink, what}, " ")), " "))
	}
	slices.Sort(out)
	return out
}

// custody returns what `custody check` finds wrong.
func (e *export) custody() []string {
	e.t.Helper()
	o := e.start("custody", "check").wait()
	out := []string{}
	for l := range strings.Lines(o.out) {
		if wrong, ok := strings.CutPrefix(strings.TrimSpace(l), "wrong: "); ok {
			out = append(out, wrong)
		}
	}
	if want := min(1, len(out)); o.code != want || strings.Count(o.out, "\ncustody ")+strings.Count("\n"+o.out, "\ncustody holds") == 0 {
		e.t.Errorf("exit code %d, want %d: %s", o.code, want, o)
	}
	return out
}

// others asks sha256sum, md5sum and ssh-keygen, which know nothing of us, and
// returns which of them refuse.
func (e *export) others() []string {
	e.t.Helper()
	dir := e.path("export", "custody")
	out := []string{}
	ask := func(name, stdin string, args ...string) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if stdin != "" {
			b, err := os.ReadFile(filepath.Join(dir, stdin))
			if err != nil {
				out = append(out, name)
				return
			}
			cmd.Stdin = bytes.NewReader(b)
		}
		if err := cmd.Run(); err != nil {
			out = append(out, name)
		}
	}
	ask("sha256sum", "", "sha256sum", "--strict", "--quiet", "-c", "manifest.sha256")
	ask("md5sum", "", "md5sum", "--strict", "--quiet", "-c", "manifest.md5")
	for _, n := range []string{"000001", "000002"} {
		ask("ssh-keygen "+n, n+"/record.json", "ssh-keygen", "-Y", "verify", "-f", "allowed_signers", "-I", "mail", "-n", "file", "-s", n+"/record.json.sig")
	}
	return out
}

const (
	emlManifest = "export/eml/.mailhaul/manifest.jsonl"
	msgManifest = "export/msg/.mailhaul/manifest.jsonl"
	indexFile   = "export/index.jsonl"
)

// TestDamage does everything to an export that can be done to it: verify and
// custody check name exactly that, and nothing else, and programs that know
// nothing of us agree.
func TestDamage(t *testing.T) {
	t.Parallel()
	e := newExport(t)
	drop := func(string) string { return "" }
	files := []string{"sha256sum", "md5sum"}
	cases := []struct {
		name    string
		damage  func()
		verify  []string
		custody []string
		others  []string
	}{
		{"nothing", func() {}, nil, nil, nil},

		// The output.
		{"a file gone", func() { e.remove(e.file("eml", "two")) },
			[]string{"missing output archive two"}, []string{"EML(two) isn't there"}, files},
		{"one octet changed", func() { e.change(e.file("eml", "two"), func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) },
			[]string{"changed output archive two"}, []string{"EML(two) isn't what was exported"}, files},
		{"a file cut short", func() { e.change(e.file("eml", "seven"), func(b []byte) []byte { return b[:len(b)-1] }) },
			[]string{"changed output archive seven"}, []string{"EML(seven) isn't what was exported"}, files},
		{"octets appended", func() { e.change(e.file("eml", "ten"), func(b []byte) []byte { return append(b, '\n') }) },
			[]string{"changed output archive ten"}, []string{"EML(ten) isn't what was exported"}, files},
		{"a file added", func() { e.cp(e.file("eml", "one"), e.path("export/eml/alice/INBOX/planted.eml")) },
			[]string{"extra output archive"}, nil, nil},
		{"two files exchanged", func() {
			a, b := e.file("eml", "one"), e.file("eml", "six")
			e.cp(a, e.path("x"))
			e.cp(b, a)
			e.cp(e.path("x"), b)
		}, []string{"changed output archive one", "changed output archive six"}, []string{"EML(one) isn't what was exported", "EML(six) isn't what was exported"}, files},
		{"an octet of a .msg changed", func() { e.change(e.file("msg", "three"), func(b []byte) []byte { b[len(b)-600] ^= 1; return b }) },
			[]string{"changed output outlook three"}, []string{"MSG(three) isn't what was exported"}, files},
		{"a .msg and its row made of another mail", func() {
			from, to := e.file("msg", "one"), e.file("msg", "two")
			e.cp(from, to)
			rows, err := os.ReadFile(e.path(msgManifest))
			if err != nil {
				t.Fatal(err)
			}
			_, one, _ := strings.Cut(string(rows), "-one-")
			_, one, _ = strings.Cut(one, `"size":`)
			one, _, _ = strings.Cut(one, "\n")
			e.line(e.path(msgManifest), "-two-", func(l string) string {
				head, _, _ := strings.Cut(l, `"size":`)
				return head + `"size":` + one + "\n"
			})
		}, []string{"changed output outlook two"}, []string{"MSG(two) isn't what was exported"}, files},
		{"a target gone", func() { e.remove(e.path("export/msg")) },
			[]string{"missing target outlook"}, allGone("msg"), files},

		// The manifests and markers.
		{"a manifest's row removed", func() { e.line(e.path(emlManifest), "-four-", drop) }, []string{"missing manifest archive four"}, nil, nil},
		{"a manifest's row with another hash", func() {
			e.line(e.path(emlManifest), "-four-", func(l string) string { return flipHash(l, `"sha256":"`) })
		}, []string{"changed manifest archive four"}, nil, nil},
		{"a manifest cut short", func() { e.change(e.path(emlManifest), func(b []byte) []byte { return b[:len(b)-20] }) },
			[]string{"changed manifest archive ten"}, nil, nil},
		{"a row added to a manifest", func() {
			e.change(e.path(emlManifest), func(b []byte) []byte {
				first, _, _ := bytes.Cut(b, []byte("\n"))
				return append(append(b, bytes.Replace(first, []byte(`"uid":`), []byte(`"uid":9`), 1)...), '\n')
			})
		}, []string{"extra manifest archive"}, nil, nil},
		{"a manifest gone", func() { e.remove(e.path(emlManifest)) }, []string{"missing manifest archive"}, nil, nil},
		{"a marker gone", func() { e.remove(e.path("export/eml/.mailhaul/target.json")) }, []string{"missing target archive"}, nil, nil},

		// The ledger.
		{"a ledger's row removed", func() { e.ledger("DELETE FROM message WHERE instr(fates, '-five-') > 0") }, []string{"missing ledger five"}, nil, nil},
		{"a ledger's hash changed", func() {
			e.ledger("UPDATE message SET sha256 = zeroblob(32) WHERE instr(fates, '-five-') > 0")
		}, []string{"changed ledger five"}, nil, nil},

		// The index.
		{"an index line removed", func() { e.line(e.path(indexFile), `"eight"`, drop) }, []string{"missing index index eight"}, []string{"INDEX isn't what was exported"}, files},
		{"an index line cut", func() { e.line(e.path(indexFile), `"eight"`, func(l string) string { return l[:200] + "\n" }) },
			[]string{"changed index index eight"}, []string{"INDEX isn't what was exported"}, files},
		{"the index cut at its end", func() { e.change(e.path(indexFile), func(b []byte) []byte { return b[:len(b)-9] }) },
			[]string{"changed index index ten"}, []string{"INDEX isn't what was exported"}, files},
		{"an index line with another subject", func() {
			e.line(e.path(indexFile), `"eight"`, func(l string) string { return strings.Replace(l, `"subject":"eight"`, `"subject":"later"`, 1) })
		}, []string{"changed index index eight"}, []string{"INDEX isn't what was exported"}, files},
		{"an index line with another hash", func() {
			e.line(e.path(indexFile), `"eight"`, func(l string) string { return flipHash(l, `,"sha256":"`) })
		}, []string{"changed index index eight"}, []string{"INDEX isn't what was exported"}, files},
		{"an index line twice", func() { e.line(e.path(indexFile), `"eight"`, func(l string) string { return l + l }) },
			[]string{"extra index index eight"}, []string{"INDEX isn't what was exported"}, files},
		{"the index gone", func() { e.remove(e.path(indexFile)) }, []string{"missing target index"}, []string{"INDEX isn't there"}, files},

		// The custody.
		{"a signature over other octets", func() {
			e.cp(e.path("export/custody/000002/record.json.sig"), e.path("export/custody/000001/record.json.sig"))
		}, nil, []string{"the signature of record 1 doesn't hold: it is over other octets than the record has now"}, []string{"ssh-keygen 000001"}},
		{"a record edited", func() {
			e.line(e.path("export/custody/000001/record.json"), `"user":`, func(string) string { return `"user": "nobody",` + "\n" })
		}, nil, []string{"record 1 isn't as it was: its signature and record 2 say so"}, []string{"ssh-keygen 000001"}},
		{"a record taken out", func() { e.remove(e.path("export/custody/000001")) }, nil, []string{"record 1 isn't there"}, []string{"ssh-keygen 000001"}},
		{"a custody manifest edited", func() {
			e.line(e.path("export/custody/manifest.sha256"), filepath.Base(e.file("eml", "six")), drop)
		}, nil, []string{"manifest.sha256 isn't as record 2 has it"}, nil},
		{"an exception taken out", func() { e.change(e.path("export/custody/000001/exceptions.csv"), func([]byte) []byte { return nil }) },
			nil, []string{"000001/exceptions.csv isn't as record 1 has it"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e.job.t = t
			names := e.names(c.custody)
			c.damage()
			defer func() {
				e.remove(e.path("x"))
				e.restore()
			}()
			var args []string
			if c.name != "nothing" && !strings.Contains(c.name, "ledger") {
				args = append(args, "--offline") // the server has no part in it
			}
			var wg sync.WaitGroup
			for _, x := range []struct {
				what string
				want []string
				look func() []string
			}{{"verify", c.verify, func() []string { return e.verify(args...) }}, {"custody check", names, e.custody}, {"other programs", c.others, e.others}} {
				wg.Go(func() {
					if diff := cmp.Diff(append([]string{}, x.want...), x.look()); diff != "" {
						t.Errorf("%s: %s", x.what, diff)
					}
				})
			}
			wg.Wait()
		})
	}
	e.job.t = t
	e.serverDamage(t)
}

// serverDamage changes what the server has, once and for all.
func (e *export) serverDamage(t *testing.T) {
	var stays []string
	for _, c := range []struct {
		name   string
		damage func()
		verify []string
		mended bool
	}{
		{"a new message", func() {
			e.server.Deliver("alice", "Work", []byte("Subject: fresh\r\n\r\nx\r\n"), time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC))
		}, []string{"extra server fresh"}, true},
		{"a message deleted", func() {
			e.server.Doveadm("expunge", "-u", "alice", "mailbox", "Work", "subject", "fresh")
			e.server.Doveadm("expunge", "-u", "alice", "mailbox", "INBOX", "subject", "three")
		}, []string{"missing server three"}, false},
		{"a mailbox deleted", func() { e.server.Doveadm("mailbox", "delete", "-u", "alice", "Old") }, []string{"missing server Old"}, false},
		{"UIDVALIDITY changed", func() {
			e.server.Doveadm("mailbox", "delete", "-u", "alice", "Work")
			e.server.Doveadm("mailbox", "create", "-u", "alice", "Work")
		}, []string{"changed server Work"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.job.t = t
			c.damage()
			want := append(slices.Clone(stays), c.verify...)
			slices.Sort(want)
			if diff := cmp.Diff(want, e.verify()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{}, e.verify("--offline")); diff != "" {
				t.Errorf("offline: %s", diff)
			}
			if !c.mended {
				stays = want
			}
		})
	}
	e.job.t = t
}

// names puts real paths into what a case expects of custody check.
func (e *export) names(in []string) []string {
	out := []string{}
	for _, s := range in {
		s = strings.Replace(s, "INDEX", "../index.jsonl", 1)
		for word, sink := range map[string]string{"EML": "eml", "MSG": "msg"} {
			if rest, ok := strings.CutPrefix(s, word+"("); ok {
				subject, after, _ := strings.Cut(rest, ")")
				rel, err := filepath.Rel(e.path("export", "custody"), e.file(sink, subject))
				if err != nil {
					e.t.Fatal(err)
				}
				s = rel + after
			}
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// allGone is what is said of every file of a sink.
func allGone(sink string) []string {
	var out []string
	for _, s := range []string{"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"} {
		out = append(out, fmt.Sprintf("%s(%s) isn't there", strings.ToUpper(sink), s))
	}
	return out
}

// flipHash changes the first digit behind a mark.
func flipHash(l, mark string) string {
	i := strings.LastIndex(l, mark) + len(mark)
	c := byte('0')
	if l[i] == '0' {
		c = '1'
	}
	return l[:i] + string(c) + l[i+1:]
}
