package pluginhost

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"time"
)

// lineLimit is the most octets of one line of a plugin's output that are
// looked at as one.
const lineLimit = 64 << 10

// tailLines is how many of a plugin's last words are kept for the error that
// its crash becomes.
const tailLines = 40

// output turns what a plugin writes into records of the host's log.
type output struct {
	log    *slog.Logger
	redact *redactor

	mu   sync.Mutex
	tail []string // plain lines, the newest last
	told []string // the first few of standard output
}

// stderr reads the plugin's log until its end: lines of JSON as log/slog
// writes them, and anything else.
func (o *output) stderr(r io.Reader) {
	lines(r, func(line []byte) { o.error(string(line)) })
}

func (o *output) error(line string) {
	if !o.record([]byte(line)) {
		o.plain(slog.LevelWarn, line, "stderr")
	}
}

// stray shows a line that the plugin printed on its standard output.
func (o *output) stray(line string) {
	o.plain(slog.LevelWarn, line, "stdout")
}

func (o *output) plain(level slog.Level, line, from string) {
	line = o.redact.text(strings.ToValidUTF8(strings.TrimRight(line, "\r\n"), "\uFFFD"))
	if strings.TrimSpace(line) == "" {
		return
	}
	o.mu.Lock()
	if from == "stdout" && len(o.told) < 3 {
		o.told = append(o.told, line)
	}
	if from == "stderr" {
		if len(o.tail) == tailLines && !strings.HasPrefix(o.tail[0], "panic:") && !strings.HasPrefix(o.tail[0], "fatal error:") {
			o.tail = append(o.tail[:0], o.tail[1:]...)
		}
		if len(o.tail) < tailLines {
			o.tail = append(o.tail, line)
		}
	}
	o.mu.Unlock()
	o.log.Log(context.Background(), level, line, "from", from)
}

// record logs a line of JSON with its own level, time and attributes.
func (o *output) record(line []byte) bool {
	if len(line) == 0 || line[0] != '{' {
		return false
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) != nil {
		return false
	}
	var msg string
	var level slog.Level
	if json.Unmarshal(fields[slog.MessageKey], &msg) != nil || json.Unmarshal(fields[slog.LevelKey], &level) != nil {
		return false
	}
	if !o.log.Enabled(context.Background(), level) {
		return true
	}
	var when time.Time
	if json.Unmarshal(fields[slog.TimeKey], &when) != nil {
		when = time.Now()
	}
	rec := slog.NewRecord(when, level, o.redact.text(msg), 0)
	names := make([]string, 0, len(fields))
	for name := range fields {
		if name != slog.MessageKey && name != slog.LevelKey && name != slog.TimeKey {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		var text string
		if json.Unmarshal(fields[name], &text) != nil {
			text = string(fields[name])
		}
		rec.AddAttrs(slog.String(name, o.redact.text(text)))
	}
	_ = o.log.Handler().Handle(context.Background(), rec) // a log that can't be written can't say so
	return true
}

// lastWords returns the line that says why the process died, if one does, or
// the last lines.
func (o *output) lastWords() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.tail {
		if strings.HasPrefix(l, "panic:") || strings.HasPrefix(l, "fatal error:") {
			return l
		}
	}
	return strings.Join(o.tail[max(0, len(o.tail)-3):], " / ")
}

// strayWords returns the first that the plugin printed on its standard output.
func (o *output) strayWords() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.told, " / ")
}

// lines calls f for each line of r, without its end, until r ends. A line
// longer than the limit comes in pieces.
func lines(r io.Reader, f func([]byte)) {
	b := bufio.NewReaderSize(r, lineLimit)
	for {
		line, err := b.ReadSlice('\n')
		if len(line) > 0 {
			f(bytes.TrimRight(line, "\r\n"))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// lineWriter shows what is written to it line by line.
type lineWriter struct {
	show func(string)

	mu   sync.Mutex
	rest []byte
}

// Write implements io.Writer. It keeps what doesn't end in a newline until
// the next one comes, or for a line that is too long.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok && len(line) < lineLimit {
			return len(p), nil
		}
		w.show(string(line))
		w.rest = rest
	}
}

// flush shows what is left.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.show(string(w.rest))
		w.rest = nil
	}
}
