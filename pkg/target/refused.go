package target

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"io"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// refusal is a file that the server of a bucket refused. Whether it refuses
// all files the manifest shows, which is put behind it: when that gets through,
// it is this one, and the message's dead letter (I6).
type refusal struct {
	id   message.ID
	name string
	err  error
}

// mostRefused is up to where files may be refused though none was taken: a
// server that takes the manifest and nothing else isn't one that a message is
// wrong for.
const mostRefused = 8

// uploaded notes how an upload ended.
func (t *Objects) uploaded(u *upload, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.taken++
	case errors.Is(err, objects.ErrRefused), fault.Is(err, fault.Message):
		t.turned++
		u.epoch.refused = append(u.epoch.refused, refusal{u.id, u.name, err})
	case t.failed == nil: // others of the same moment say the same of other names
		t.failed = err
		t.stop() // what the others have in hand counts for nothing any more
	}
}

// takesOthers reports whether the server takes an object now: one that fails on
// all of them is away for a moment, and what fails on one alone would fail each
// run (I6).
func (t *Objects) takesOthers() bool {
	brief := *t.at.bucket
	brief.Patience = 0
	name := t.at.books + "probe-" + strings.ToLower(rand.Text()[:10])
	if err := brief.Put(t.ctx, name, strings.NewReader("x"), 1, objects.PutOptions{}); err != nil {
		return false
	}
	_ = brief.Delete(t.ctx, name) // what stays harms nobody
	return true
}

// onlyOn makes of a server's failure that of one object.
func onlyOn(err error) error {
	return fault.New(fault.Message, "%s; other objects it takes", err.Error()).WithReason("server_fails").
		WithHint("see what the server logs of this object; pipeline failed retry tries it again")
}

// takeRefused takes the rows of refused files out of an epoch's, and returns
// whose they were. The error is the server's where it refuses too much to be
// about single messages. The lock is held.
func (t *Objects) takeRefused(e *objectsEpoch) (message.Refusals, error) {
	if len(e.refused) == 0 {
		return nil, nil
	}
	if t.turned > mostRefused && t.turned > t.taken {
		return nil, e.refused[0].err
	}
	var out message.Refusals
	names := map[string]bool{}
	for _, x := range e.refused {
		names[x.name] = true
		letter := &fault.Error{Class: fault.Message, Text: x.err.Error(), Reason: "refused_by_server", Err: x.err}
		if f := fault.As(x.err); f != nil {
			letter.Hint = f.Hint
			if f.Class == fault.Message {
				letter.Reason = cmp.Or(f.Reason, "name_refused")
			}
		}
		out = append(out, message.Refusal{ID: x.id, Err: letter})
	}
	e.refused = nil
	kept, lines := e.rows[:0], bufio.NewReaderSize(bytes.NewReader(bytes.Clone(e.rows)), 256<<10)
	for {
		line, err := readLine(lines)
		if len(line) > 0 {
			row, wrong := parseRow(line)
			if wrong != nil {
				return nil, fault.Wrap(fault.Bug, wrong, "read a row of the manifest that was just made")
			}
			if !names[row.Path] {
				kept = append(kept, line...)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fault.Wrap(fault.Bug, err, "read the rows of the manifest that were just made")
		}
	}
	e.rows = kept
	return out, nil
}
