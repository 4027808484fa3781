package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Class is what became of a message, for one target or for all.
type Class uint8

// The classes of I1. Pending is never stored: it is the absence of a fate.
// The numbers stand in the ledger's file.
const (
	Pending   Class = iota
	Written         // durable in the target
	Dropped         // by a stage
	Duplicate       // of a message that is written
	Unrouted        // the sink's `when` refused it
	Dead            // refused for good: a dead letter
	Vanished        // listed, then gone: a fresh List doesn't have it
	Stale           // written, and told anew since: the record must be sent again
)

var classNames = [...]string{"pending", "written", "dropped", "duplicate", "unrouted", "dead letter", "vanished", "stale"}

// String returns the class's name as it stands in reports.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", c)
}

// TargetID is the ledger's number of a (sink, Target) pair. Everywhere is the
// fate that holds for all sinks: a stage's drop, a message that can't be had.
type TargetID uint32

// Everywhere stands for all targets.
const Everywhere TargetID = 0

// Fate is what became of a message in one target.
type Fate struct {
	Target  TargetID
	Class   Class
	Receipt string // Written: the path within the target
	Letter  *Letter
	Refusal *Refusal
}

// Letter says why a message is a dead letter, and enough of the message for
// a person to find it.
type Letter struct {
	Stage   string `json:"stage,omitempty"` // the stage or sink that refused it; empty: the source
	Reason  string `json:"reason"`          // short stable word, for grouping
	Text    string `json:"text"`
	Subject string `json:"subject,omitempty"`
	From    string `json:"from,omitempty"`
	Date    string `json:"date,omitempty"`
	Octets  []byte `json:"octets,omitempty"` // what the server sent in the message's place
}

// Refusal is kept for Dropped and Unrouted: who refused, under which rules,
// and the values that the rules read, so that they can be applied again
// without the server (I8).
type Refusal struct {
	Stage  string // name of the stage or sink
	Rules  string // fingerprint of the chain up to it, or of the `when`
	Values []byte // JSON object, field -> value
}

// pack appends the target, class and receipt of the fate to b: a few octets,
// so that a message is one short row.
func (f *Fate) pack(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(f.Target))
	b = append(b, byte(f.Class))
	b = binary.AppendUvarint(b, uint64(len(f.Receipt)))
	return append(b, f.Receipt...)
}

// unpack appends the fates that b holds to fates.
func unpack(fates []Fate, b []byte) ([]Fate, error) {
	for len(b) > 0 {
		target, n := binary.Uvarint(b)
		if n <= 0 || len(b) < n+2 || target > math.MaxUint32 {
			return nil, &damage{"a message's fates", errors.New("one is cut short")}
		}
		class := Class(b[n])
		if class == Pending || class == Dropped || int(class) >= len(classNames) {
			return nil, &damage{"a message's fates", fmt.Errorf("%d is no class of a fate", class)}
		}
		b = b[n+1:]
		size, n := binary.Uvarint(b)
		if n <= 0 || uint64(len(b)-n) < size {
			return nil, &damage{"a message's fates", errors.New("a receipt is cut short")}
		}
		end := n + int(size)
		fates = append(fates, Fate{Target: TargetID(target), Class: class, Receipt: string(b[n:end])})
		b = b[end:]
	}
	return fates, nil
}
