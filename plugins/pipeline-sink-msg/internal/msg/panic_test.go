package msg

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// TestBrokenConverterIsADeadLetter: a nil converter stands for a bug in it.
func TestBrokenConverterIsADeadLetter(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := &files{log: slog.New(slog.NewTextHandler(&log, nil))}
	body := message.BodyOf([]byte("From: a@b.c\r\n\r\n"))
	whole, err := body.Whole(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = s.convert(nil, whole, &message.Message{})
	if !fault.Is(err, fault.Message) || fault.As(err).Reason != "converter_bug" {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(log.String(), "stack=") {
		t.Errorf("the log says %q", log.String())
	}
}
