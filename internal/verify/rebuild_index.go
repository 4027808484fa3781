package verify

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/output"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
)

// lines reads an index.
func (b *rebuilder) lines(_ context.Context, s *plan.Sink) ([]byte, error) {
	path := s.Prepared.Target
	taken := RebuiltSink{Sink: s.Name}
	length, err := b.eachLine(path, &taken)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, target.DiskError(err, "read the index %s", path)
	}
	generation, pending := int64(1), int64(0)
	var swap struct {
		To indexPoint `json:"to"`
	}
	if text, err := os.ReadFile(filepath.Join(books(s), "swap.json")); err == nil && json.Unmarshal(text, &swap) == nil && swap.To.Generation > 0 {
		generation = swap.To.Generation
	}
	if n, err := b.eachLine(filepath.Join(books(s), fmt.Sprintf("pending-%d.jsonl", generation)), &taken); err == nil {
		pending = n
	}
	b.result.Sinks = append(b.result.Sinks, taken)
	return json.Marshal(map[string]int64{"v": 1, "generation": generation, "length": length, "pending": pending})
}

// eachLine takes the whole lines of an index, and returns where the last one
// ends.
func (b *rebuilder) eachLine(path string, taken *RebuiltSink) (length int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if length, err = b.takeLines(f, taken); err == nil {
		err = f.Sync()
	}
	return length, err
}

// takeLines takes the whole lines of an index, or of a part of one.
func (b *rebuilder) takeLines(in io.Reader, taken *RebuiltSink) (length int64, err error) {
	r := bufio.NewReaderSize(in, 1<<20)
	for {
		text, err := r.ReadBytes('\n')
		if err == io.EOF {
			return length, nil
		}
		if err != nil {
			return length, err
		}
		length += int64(len(text))
		var l indexLine
		if json.Unmarshal(text, &l) != nil || l.ID == "" {
			taken.Left++
			continue
		}
		b.index[l.ID] = l
		taken.Rows++
	}
}

// object reads an index in a bucket.
func (b *rebuilder) object(ctx context.Context, s *plan.Sink) ([]byte, error) {
	x, err := output.OpenIndex(ctx, s.Address, b.o.Store)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	state, cut, err := x.Rebuilt(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case cut, state.Wrong != "":
		why := state.Wrong
		if cut {
			why = "its last line is cut short"
		}
		b.result.Left = append(b.result.Left, fmt.Sprintf("sink %s: %s isn't taken: %s; the next run writes it anew", s.Name, s.Prepared.Target, why))
		return nil, nil
	}
	taken := RebuiltSink{Sink: s.Name}
	err = x.Each(ctx, state, func(in io.Reader, _ bool) error {
		_, err := b.takeLines(in, &taken)
		return err
	})
	if err != nil {
		return nil, err
	}
	b.result.Sinks = append(b.result.Sinks, taken)
	return state.Point.Checkpoint()
}

// idOf returns the id of an index line; false for one that the line doesn't
// hold whole.
func (l *indexLine) idOf() (message.ID, bool) {
	id := message.ID{Source: l.Source, Mailbox: l.Mailbox, UIDValidity: l.UIDValidity, UID: l.UID, UIDL: l.UIDL}
	if rest, n, ok := strings.Cut(l.ID, ";ORDINAL="); ok {
		ordinal, err := strconv.ParseUint(n, 10, 32)
		if err != nil {
			return id, false
		}
		id.Ordinal = uint32(ordinal)
		l = &indexLine{ID: rest}
	}
	if _, hash, ok := strings.Cut(l.ID, ";HEADER="); ok {
		id.HeaderHash = hash
	}
	return id, true
}

// header makes of an index line what a dedupe reads of a header.
func (l *indexLine) header() *message.Header {
	var b strings.Builder
	fmt.Fprintf(&b, "Message-ID: %s\r\nSubject: %s\r\n", l.MessageID, strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return ' '
		}
		return r
	}, l.Subject))
	if at, err := time.Parse(time.RFC3339, l.Date); err == nil {
		fmt.Fprintf(&b, "Date: %s\r\n", at.Format(time.RFC1123Z))
	}
	var from []string
	for _, a := range l.From {
		from = append(from, "<"+a.Address+">")
	}
	fmt.Fprintf(&b, "From: %s\r\n\r\n", strings.Join(from, ", "))
	return message.NewHeader([]byte(b.String()))
}
