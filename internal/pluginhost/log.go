package pluginhost

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// lineLimit is the most octets of one line of a plugin's output that are
// looked at as one.
const lineLimit = 64 << 10

// tailLines is how many of a plugin's last words are kept for the error that
// its crash becomes.
const tailLines = 40

// What a plugin may log: so many lines at once, then so many a second, and so
// many octets of a value. A plugin that goes round in circles must fill neither
// the disk nor the terminal (I5).
const (
	lineBurst  = 2000
	lineRate   = 200
	valueLimit = 8 << 10
)

// output turns what a plugin writes into records of the host's log.
type output struct {
	log    *slog.Logger
	redact *redactor

	mu      sync.Mutex
	tail    []string // plain lines, the newest last
	told    []string // the first few of standard output
	pace    *rate.Limiter
	leftOut int // lines, since one was logged
}

func newOutput(log *slog.Logger, redact *redactor) *output {
	return &output{log: log, redact: redact, pace: rate.NewLimiter(lineRate, lineBurst)}
}

// allow reports whether another line may be logged, and says how many weren't.
func (o *output) allow() bool {
	o.mu.Lock()
	ok, n := o.pace.Allow(), o.leftOut
	if o.leftOut++; ok {
		o.leftOut = 0
	}
	o.mu.Unlock()
	if ok {
		o.owing(n)
	}
	return ok
}

// end says how many lines were left out at the last.
func (o *output) end() {
	o.mu.Lock()
	n := o.leftOut
	o.leftOut = 0
	o.mu.Unlock()
	o.owing(n)
}

func (o *output) owing(n int) {
	if n > 0 {
		o.log.Warn("the plugin logs more than is shown", "lines left out", n)
	}
}

// value is a text as it may stand in the log.
func (o *output) value(text string) string {
	text = o.redact.text(text)
	if len(text) > valueLimit {
		text = fmt.Sprintf("%s… (%d octets)", strings.ToValidUTF8(text[:valueLimit], ""), len(text))
	}
	return text
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
	line = o.value(strings.ToValidUTF8(strings.TrimRight(line, "\r\n"), "\uFFFD"))
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
	if o.log.Enabled(context.Background(), level) && o.allow() {
		o.log.Log(context.Background(), level, line, "from", from)
	}
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
	if !o.log.Enabled(context.Background(), level) || !o.allow() {
		return true
	}
	var when time.Time
	if json.Unmarshal(fields[slog.TimeKey], &when) != nil {
		when = time.Now()
	}
	rec := slog.NewRecord(when, level, o.value(msg), 0)
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
		rec.AddAttrs(slog.String(o.value(name), o.value(text)))
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

// lines calls f for each line of r, without its end, until r ends. Of a line
// longer than the limit it gets the beginning alone: a secret that stands where
// two pieces meet would be found in neither (I9).
func lines(r io.Reader, f func([]byte)) {
	b := bufio.NewReaderSize(r, lineLimit)
	rest := false
	for {
		line, err := b.ReadSlice('\n')
		if len(line) > 0 && !rest {
			f(bytes.TrimRight(line, "\r\n"))
		}
		rest = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !rest {
			return
		}
	}
}

// lineWriter shows what is written to it line by line.
type lineWriter struct {
	show func(string)

	mu    sync.Mutex
	rest  []byte
	shown bool // the beginning of the line that is being written, which is too long
}

// Write implements io.Writer. It keeps what doesn't end in a newline until
// the next one comes. Of a line that is too long it shows the beginning, as
// lines does.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok && len(line) < lineLimit {
			return len(p), nil
		}
		if !w.shown {
			w.show(string(line))
		}
		w.rest, w.shown = rest, !ok
	}
}

// flush shows what is left.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 && !w.shown {
		w.show(string(w.rest))
	}
	w.rest = nil
}
