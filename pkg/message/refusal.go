package message

import "fmt"

// Refusal is a message that a target refused for good after its Write had
// returned.
type Refusal struct {
	ID  ID
	Err error // its dead letter: of class Message
}

// Refusals is what a sink's Flush returns beside a checkpoint that covers all
// that was written but those messages: each becomes a dead letter of its own,
// and nothing else stops (I6). It is for targets that answer late, as a bucket
// to an upload. A Flush that has made nothing durable returns another error,
// and no checkpoint.
type Refusals []Refusal

// Error implements error.
func (r Refusals) Error() string {
	if len(r) == 0 {
		return "no message was refused"
	}
	text := r[0].Err.Error()
	if len(r) > 1 {
		text = fmt.Sprintf("%s (and %d more)", text, len(r)-1)
	}
	return text
}

// Unwrap returns the first message's error, whose class a host goes by that
// doesn't know of refusals.
func (r Refusals) Unwrap() error {
	if len(r) == 0 {
		return nil
	}
	return r[0].Err
}
