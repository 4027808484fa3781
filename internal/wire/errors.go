package wire

import (
	"context"
	"errors"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// ErrorToPB converts an error, nil to nil. An error without a class keeps its
// text and stays Unknown. A cancelled or expired context becomes Unavailable:
// nothing is wrong with the message it happened to.
func ErrorToPB(err error) *pluginpb.Error {
	if err == nil {
		return nil
	}
	f := fault.As(err)
	if f == nil {
		class := fault.Unknown
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			class = fault.Unavailable
		}
		return &pluginpb.Error{Class: pluginpb.Class(class), Text: valid(err.Error())}
	}
	// The outermost text is the most complete; the class is the innermost's.
	return &pluginpb.Error{
		Class: pluginpb.Class(f.Class), Text: valid(err.Error()), Hint: valid(f.Hint),
		Key: valid(f.Key), Reason: valid(f.Reason), RetryAfterNs: int64(f.RetryAfter),
	}
}

// ErrorFromPB converts an error, nil to a nil error.
func ErrorFromPB(p *pluginpb.Error) error {
	if p == nil {
		return nil
	}
	return &fault.Error{
		Class: fault.Class(p.GetClass()), Text: p.GetText(), Hint: p.GetHint(),
		Key: p.GetKey(), Reason: p.GetReason(), RetryAfter: time.Duration(p.GetRetryAfterNs()),
	}
}

// Redacted returns err with the words of a plugin passed through redact, which
// may be nil.
func Redacted(err error, redact func(string) string) error {
	f, ok := err.(*fault.Error)
	if !ok || redact == nil {
		return err
	}
	f.Text, f.Hint = redact(f.Text), redact(f.Hint)
	return f
}
