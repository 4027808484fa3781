package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
)

// meanMails are mails that mean harm: by the names that they want to go by, and
// by how they are made.
func meanMails() (out [][]byte) {
	for _, name := range []string{
		"../../../../etc/passwd", "..\\..\\windows\\system32", "/etc/passwd", "C:\\x", "\\\\server\\share", "~/.ssh/id_rsa",
		"CON", "con.txt", "NUL", "COM1.eml", "LPT9 ", "aux.", "CONIN$", "name.", "name ", " ", ".", "..", "...", "....txt", "",
		"a\x00b.exe", "a\tb\nc", "\u202egpj.exe", "\u2066x\u2069", "\ufeffbom", "\u200b", "Report.PDF", "report.pdf", "REPORT.pdf",
		"straße", "STRASSE", "ﬁle", "file", "e\u0301", "é", "a<b>c:d|e?f*g\"h", "-rf", "--help", "$(reboot)", "`reboot`", "%00", "%2e%2e%2f",
		strings.Repeat("x", 5000), strings.Repeat("漢", 2000), strings.Repeat("../", 500), strings.Repeat("🙂", 500) + ".pdf", "\xff\xfe\xfd", "=?utf-8?B?Li4vLi4vLi4v?=", "=?x?Q?=00=0a?=",
	} {
		subject := strings.NewReplacer("\n", "\r\n ", "\x00", "\x00").Replace(name)
		out = append(out,
			fmt.Appendf(nil, "Subject: %s\r\nFrom: %s <a@example.com>\r\nMessage-ID: <%s>\r\nDate: %s\r\n\r\nx\r\n", subject, subject, subject, subject),
			fmt.Appendf(nil, "Subject: parts\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; name=\"%s\"\r\nContent-Disposition: attachment; filename=\"%s\"\r\n\r\none\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"%s\"\r\n\r\ntwo\r\n--b--\r\n",
				subject, subject, strings.ToUpper(subject)))
	}
	deep := strings.Builder{}
	for i := range 3000 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	rfc822 := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 3000)
	return append(out, nil, []byte("\r\n"), []byte("\n\n\n"), []byte("no header at all"), []byte("From a mbox\n"), []byte(":\r\n:\r\n\r\n"),
		[]byte(deep.String()), []byte(rfc822),
		[]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n"+strings.Repeat("--b\r\n\r\n", 100_000)),
		[]byte(strings.Repeat("X: y\r\n", 200_000)+"\r\n"),
		[]byte("Subject: "+strings.Repeat("=?utf-8?Q?a?= ", 100_000)+"\r\n\r\n"),
		[]byte("To: "+strings.Repeat("a@b.example, ", 100_000)+"\r\n\r\n"),
		[]byte("To: "+strings.Repeat("(", 100_000)+"\r\n\r\n"),
		[]byte("Content-Type: a/b"+strings.Repeat("; x*0=y", 50_000)+"\r\n\r\n"),
		[]byte("References: "+strings.Repeat("<", 1<<20)+"\r\n\r\n"),
		[]byte("Content-Type: text/html\r\n\r\n"+strings.Repeat("<div>", 300_000)),
		[]byte("Content-Type: application/ms-tnef\r\nContent-Disposition: attachment; filename=winmail.dat\r\n\r\n\x78\x9f\x3e\x22\x00\x00"+strings.Repeat("\xff", 1<<16)),
		[]byte("Content-Type: text/plain; charset=utf-7\r\n\r\n"+strings.Repeat("+AAA", 100_000)),
		[]byte("Content-Transfer-Encoding: base64\r\n\r\n"+strings.Repeat("=", 1<<20)),
		[]byte("Subject: \x1b]0;owned\x07\x1b[2J\r\n\r\n\x1b[31m"),
	)
}

// allStages is a pipeline with all kinds of stages and all our sinks.
const allStages = `version: 1
name: hostile
state: state
sources:
  - {name: bad, plugin: hostile, config: {path: mails}}
stages:
  - {name: first, limit: 100000}
  - {name: once, dedupe: message_id}
  - {name: some, filter: size < 100 * MB || has_attachments}
  - {name: less, drop: subject contains "never to be seen" && has_attachments}
  - {name: word, tag: {team: odd}, when: uid % 2 == 1}
  - {name: land, mailbox: {map: {INBOX: "In/Box"}}, when: from contains "a"}
  - {name: mark, header: {remove: [X-Spam-Status, Received], set: {X-Who: "Jörg"}}, when: uid % 3 == 0}
  - {name: slim, attachments: strip, when: uid % 4 == 0}
sinks:
  - {name: archive, plugin: eml, config: {path: export/eml, name: "{vars.team}/{from}/{subject}/{message_id}"}}
  - {name: outlook, plugin: msg, config: {path: export/msg}}
  - {name: parts, plugin: attachments, config: {path: export/parts}}
  - {name: index, plugin: json, config: {path: export/index.jsonl, detail: structure}}
`

// mostResidentHostile is what each process may hold, whatever it is made to
// read (I5).
const mostResidentHostile = 256 << 10 // KiB

// mostHostile is the processor time, of all processes together, that no mail may
// take. All mails of a test together stay below it, and so does each. It is no
// time of a clock, which is another's on a machine that has much to do.
const mostHostile = 10 * time.Second

// reserved are names that a file can't have on some system.
var reserved = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$)(\.|$)|[<>:"|?*\\\x00-\x1f]|[. ]$`)

// TestHostileMail takes mails that mean harm through every stage and sink: no
// process dies, each has bounded memory and time, each mail is accounted for (I1), and no
// name leaves the targets, or is one that some system doesn't take.
func TestHostileMail(t *testing.T) {
	t.Parallel()
	hostileMail(t, meanMails())
}

// TestHostileCorpus does it with those of the corpus.
func TestHostileCorpus(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("MAILHAUL_CORPUS")
	if dir == "" {
		t.Skip("MAILHAUL_CORPUS names no corpus")
	}
	files, err := filepath.Glob(filepath.Join(dir, "hostile", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s/hostile: %d files, %v", dir, len(files), err)
	}
	var all [][]byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	hostileMail(t, all)
}

func hostileMail(t *testing.T, all [][]byte) {
	t.Helper()
	j := newJob(t, allStages)
	j.hostilePlugins()
	j.env = append(j.env, "PIPELINE_PLUGIN_SILENCE=10m")
	if err := os.Mkdir(j.path("mails"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, b := range all {
		if err := os.WriteFile(j.path("mails", fmt.Sprintf("%05d", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := j.start("run")
	o := r.wait()
	cpu := r.cmd.ProcessState.UserTime() + r.cmd.ProcessState.SystemTime()
	t.Logf("%d mails: %s, %s of CPU in all processes, peaks in KiB %v\n%s%.3000s", len(all), o.took, cpu, o.peaks, o.out, o.err)
	if o.code != 0 && o.code != 3 {
		t.Errorf("exit code %d", o.code)
	}
	needs(t, o.out, fmt.Sprintf("total: %d listed = ", len(all)))
	for _, w := range []string{"pending", "panic", "died"} {
		if strings.Contains(o.out+o.err, w) {
			t.Errorf("%q is said", w)
		}
	}
	if cpu > mostHostile {
		t.Errorf("%s of processor time for all mails, more than the %s that one may take", cpu, mostHostile)
	}
	for name, peak := range o.peaks {
		if peak > mostResidentHostile {
			t.Errorf("%s: %d KiB resident, more than %d", name, peak, mostResidentHostile)
		}
	}
	if strings.ContainsFunc(o.out+o.err, func(r rune) bool { return r == 0x1b }) {
		t.Error("a mail speaks to the terminal")
	}
	wantPortable(t, j.path("export"))
	if escaped, _ := filepath.Glob(j.path("etc*")); len(escaped) > 0 {
		t.Errorf("outside of the targets: %q", escaped)
	}
	j.run(0, "verify", "--offline")
}

// wantPortable looks at all names of a tree.
func wantPortable(t *testing.T, root string) {
	t.Helper()
	folded := map[string]string{}
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files++
		name := d.Name()
		hidden := strings.ContainsFunc(name, func(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) || unicode.IsControl(r) })
		if path != root && (reserved.MatchString(name) || hidden || len(name) > 255) {
			t.Errorf("%q isn't a name for every system", name)
		}
		if d.IsDir() {
			return nil // files of several may well stand in one
		}
		lower := strings.ToLower(strings.TrimPrefix(path, root))
		if other, ok := folded[lower]; ok {
			t.Errorf("%q and %q are one where upper and lower case don't differ", other, path)
		}
		folded[lower] = path
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("%d files, %v", files, err)
	}
}
