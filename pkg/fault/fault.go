// Package fault holds the classes of error that survive the wire between the
// host and its plugins. A plugin says with a class what an error means; the
// host decides from the class alone what to do, never from the words.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Class says what an error means for the run. The zero Class is Unknown and is
// treated as Bug. The numbers are part of the wire contract.
type Class int

// The classes, the same on both sides of the wire.
const (
	Unknown     Class = iota
	Config            // the file or the plugin's config is wrong: Key names where
	Auth              // the other side refused who we are
	Unavailable       // not now: reconnect with backoff, go on where it stopped
	Throttled         // the other side asks us to slow down: RetryAfter says how long
	Gone              // the message isn't there any more
	Message           // this one message only: it becomes a dead letter
	Full              // disk or quota: stop cleanly, keep everything
	Bug               // a broken promise of ours or of a plugin
	Crashed           // the plugin's process ended; only the host makes it
)

var names = [...]string{"unknown", "config", "auth", "unavailable", "throttled", "gone", "message", "full", "bug", "crashed"}

// String returns the class's name as it stands in reports and logs.
func (c Class) String() string {
	if c < 0 || int(c) >= len(names) {
		return fmt.Sprintf("class(%d)", int(c))
	}
	return names[c]
}

// Error is an error with a class. Its text says what was tried, on what, and
// what the other side answered; Hint says what to do.
type Error struct {
	Class      Class
	Text       string        // complete sentence fragment, without the class and without the hint
	Hint       string        // what the user can do; may be empty
	Key        string        // Config only: path of the key, as in "config.tls.ca_file"
	RetryAfter time.Duration // Unavailable and Throttled: when to try again; zero when unknown
	Reason     string        // Message only: a short stable word for grouping, as in "server_placeholder"
	Err        error         // the cause; lost on the wire, its text is part of Text
}

// Error returns the text, without the hint.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause, if it is on this side of the wire.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error of class c. The format takes %w like fmt.Errorf.
func New(c Class, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Class: c, Text: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithKey sets the path of the offending key and returns e.
func (e *Error) WithKey(key string) *Error {
	e.Key = key
	return e
}

// WithReason sets the word that groups dead letters and returns e.
func (e *Error) WithReason(reason string) *Error {
	e.Reason = reason
	return e
}

// After sets when to try again and returns e.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfter = d
	return e
}

// As returns the first *Error in err's chain, or nil.
func As(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// Of returns the class of err: that of the first *Error in its chain, Unknown
// for any other error and for nil.
func Of(err error) Class {
	if e := As(err); e != nil {
		return e.Class
	}
	return Unknown
}

// Is reports whether err is of class c.
func Is(err error, c Class) bool { return err != nil && Of(err) == c }

// Wrap puts what was tried before err's text and keeps class, hint and the
// rest; an err without a class gets c. It returns nil for nil.
func Wrap(c Class, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	text := fmt.Sprintf(format, args...) + ": " + err.Error()
	if e := As(err); e != nil {
		w := *e
		w.Text, w.Err = text, err
		return &w
	}
	return &Error{Class: c, Text: text, Err: err}
}
