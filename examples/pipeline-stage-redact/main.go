// Pipeline-stage-redact masks words in the text of messages with as many x.
package main

import (
	"bufio"
	"bytes"
	"context"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/stage"
)

type config struct {
	Words []string `json:"words" required:"true" doc:"words that are masked where they stand in the octets of a message, exactly so" example:"[\"ACME-4711\"]"`
}

type redact struct{ words []string }

func main() {
	stage.Serve(stage.Plugin[config]{
		Name: "redact", Version: "1.0.0", Summary: "masks words in messages",
		Prepare: func(config) (stage.Spec, error) {
			return stage.Spec{Needs: message.NeedBody, Changes: true}, nil
		},
		Open: func(_ context.Context, c config, _ stage.Env) (stage.Stage, error) {
			return redact{c.Words}, nil
		},
	})
}

// Apply masks while the octets pass: a mask is as long as its word.
func (s redact) Apply(_ context.Context, m *message.Message) (stage.Verdict, error) {
	m.Body = message.NewBody(&lines{r: bufio.NewReader(m.Body), words: s.words}, m.Body.Size(), nil)
	return stage.Keep, nil
}

func (s redact) Close() error { return nil }

type lines struct {
	r     *bufio.Reader
	words []string
	line  []byte
}

func (l *lines) Read(p []byte) (int, error) {
	for len(l.line) == 0 {
		line, err := l.r.ReadSlice('\n')
		if len(line) == 0 {
			return 0, err
		}
		for _, w := range l.words {
			line = bytes.ReplaceAll(line, []byte(w), bytes.Repeat([]byte("x"), len(w)))
		}
		l.line = line
	}
	n := copy(p, l.line)
	l.line = l.line[n:]
	return n, nil
}
