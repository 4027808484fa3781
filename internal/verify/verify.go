// Package verify holds an export against itself: the output, read and hashed
// again, against the sinks' manifests, the index, the ledger, and what the
// servers list now. It says what is missing, changed or extra, message by
// message, and changes nothing.
//
// Of each message it holds some 200 octets and as much for each sink, never
// a body: a million messages in two sinks take about half a gigabyte.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/source"
)

// Options say what is verified, and how much of it.
type Options struct {
	Plan   *plan.Plan
	Ledger *ledger.Ledger

	// OpenSource opens a session of a source, to list what its server has
	// now; nil: no server is asked.
	OpenSource func(ctx context.Context, s *plan.Source) (source.Opened, error)

	// Store returns the socket of the store of objects. It is called only when
	// a sink's target is in a bucket.
	Store func() (string, error)

	// Progress is kept up to date while files are read; nil: nobody looks.
	Progress *Progress

	// Beside are paths that belong to the pipeline itself, as its reports and
	// custody records: they are no message's, wherever they stand.
	Beside []string

	// Sample is the share of the files that are read again, above 0 and up to
	// 1. That all are there, and of their size, is looked at in any case.
	Sample float64
}

// Progress is how far a verification is.
type Progress struct {
	All  atomic.Int64 // files that the ledger says are there; 0: not known yet
	Read atomic.Int64 // of them, those that were looked at
}

// Kind says how something is wrong.
type Kind string

// The kinds of finding.
const (
	Missing Kind = "missing"
	Changed Kind = "changed"
	Extra   Kind = "extra"
)

// Place is where something is wrong.
type Place string

// The places.
const (
	Output   Place = "output"   // a file that a sink wrote
	Manifest Place = "manifest" // a row of a sink's manifest
	Index    Place = "index"    // a line of a record sink
	InLedger Place = "ledger"   // a row of the ledger
	Server   Place = "server"   // what a server lists now
	Target   Place = "target"   // a target as a whole: its folder, its marker
)

// Finding is one thing that is wrong. Fields that don't apply are empty.
type Finding struct {
	Kind    Kind   `json:"kind"`
	Place   Place  `json:"place"`
	Text    string `json:"text"`           // what is wrong, in words
	Sink    string `json:"sink,omitempty"` // name in the file
	Source  string `json:"source,omitempty"`
	Mailbox string `json:"mailbox,omitempty"`
	ID      string `json:"id,omitempty"` // of the message
	Subject string `json:"subject,omitempty"`
	From    string `json:"from,omitempty"`
	Date    string `json:"date,omitempty"`
	Path    string `json:"path,omitempty"`  // within the sink's target
	Count   int64  `json:"count,omitempty"` // messages that it stands for, when not one

	item int32 // of the table; -1: none
}

// SinkResult is what was looked at in one sink.
type SinkResult struct {
	Sink     string `json:"sink"`
	Target   string `json:"target"`
	Messages int64  `json:"messages"`          // that the ledger says are there
	Files    int64  `json:"files"`             // found, that belong to messages
	Hashed   int64  `json:"hashed"`            // of them, read and hashed again
	Octets   int64  `json:"octets"`            // read
	Lines    int64  `json:"lines,omitempty"`   // of an index
	Opened   int64  `json:"opened,omitempty"`  // .msg files that were held against their EML
	Note     string `json:"note,omitempty"`    // what couldn't be checked, and why
	Pending  bool   `json:"pending,omitempty"` // a run was cut short: the next one puts this sink in order
}

// SourceResult is what a server listed.
type SourceResult struct {
	Source    string `json:"source"`
	Mailboxes int    `json:"mailboxes"`
	Listed    int64  `json:"listed"`
	Error     string `json:"error,omitempty"` // why it couldn't be asked, or not to the end
}

// Result is what was found.
type Result struct {
	Messages int64          `json:"messages"` // that the ledger knows
	Sinks    []SinkResult   `json:"sinks"`
	Sources  []SourceResult `json:"sources,omitempty"` // empty when no server was asked
	Sample   float64        `json:"sample"`
	Findings []Finding      `json:"findings"`
}

// Unasked reports whether a server that should have been asked couldn't be.
func (r *Result) Unasked() bool {
	return slices.ContainsFunc(r.Sources, func(s SourceResult) bool { return s.Error != "" })
}

// verifier is a verification under way.
type verifier struct {
	o     Options
	table *table
	sinks []*kept
	salt  uint64 // of the sample

	mu       sync.Mutex
	findings []Finding
}

// Run verifies. An error means that it couldn't; that something is wrong
// isn't one.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Sample <= 0 || o.Sample > 1 {
		o.Sample = 1
	}
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	v := &verifier{o: o, table: newTable(), salt: rand.Uint64()}
	for i := range o.Plan.Sinks {
		s := &o.Plan.Sinks[i]
		t, err := o.Ledger.Target(ctx, s.Name, s.Prepared.Target)
		if err != nil {
			return nil, err
		}
		k := newKept(s, t)
		if err := k.open(ctx, o.Store); err != nil {
			return nil, err
		}
		defer k.close()
		v.sinks = append(v.sinks, k)
	}
	if err := v.readLedger(ctx); err != nil {
		return nil, err
	}
	r := &Result{Sample: o.Sample, Findings: []Finding{}}
	for i := range v.table.items {
		if v.table.items[i].known {
			r.Messages++
		}
	}
	if err := v.readSinks(ctx); err != nil {
		return nil, err
	}
	v.judge()
	if err := v.openMSGs(ctx); err != nil {
		return nil, err
	}
	if o.OpenSource != nil {
		r.Sources = v.askServers(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, k := range v.sinks {
		r.Sinks = append(r.Sinks, k.result)
	}
	r.Findings = append(r.Findings, v.findings...)
	if err := v.nameAll(ctx, r.Findings); err != nil {
		return nil, err
	}
	sortFindings(r.Findings)
	return r, nil
}

// sortFindings brings what belongs together together.
func sortFindings(f []Finding) {
	slices.SortStableFunc(f, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.Place, b.Place),
			cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Sink, b.Sink), natural(a.Path, b.Path), natural(a.ID, b.ID), natural(a.Text, b.Text))
	})
}

// natural compares texts as people do: UID=9 comes before UID=10.
func natural(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		m, n := digits(x), digits(y)
		if m == 0 || n == 0 {
			if x[0] != y[0] {
				return cmp.Compare(x[0], y[0])
			}
			x, y = x[1:], y[1:]
			continue
		}
		i, j := strings.TrimLeft(x[:m], "0"), strings.TrimLeft(y[:n], "0")
		if c := cmp.Or(cmp.Compare(len(i), len(j)), cmp.Compare(i, j)); c != 0 {
			return c
		}
		x, y = x[m:], y[n:]
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a, b))
}

// digits returns how many digits a text begins with.
func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// readLedger fills the table with what the ledger has.
func (v *verifier) readLedger(ctx context.Context) error {
	at := map[ledger.TargetID]*kept{}
	for _, k := range v.sinks {
		at[k.target.ID] = k
	}
	return v.o.Ledger.Known(ctx, func(m *ledger.Known) error {
		n := v.table.add(m.ID)
		if m.Exported != nil {
			v.table.also(*m.Exported, n)
		}
		it := &v.table.items[n]
		it.known, it.octets = true, m.Octets
		it.changed, it.removed = m.Changed, m.Removed
		v.table.boxes[it.box].number = m.Box
		if len(m.SHA256) == len(it.sum) {
			it.hashed = true
			copy(it.sum[:], m.SHA256)
		}
		for i := range m.Fates {
			f := &m.Fates[i]
			it.vanished = it.vanished || f.Class == ledger.Vanished
			k := at[f.Target]
			if k == nil || f.Class != ledger.Written && f.Class != ledger.Stale {
				continue
			}
			r := k.row(n)
			r.written, r.stale = true, f.Class == ledger.Stale
			k.result.Messages++
			if f.Receipt != "" {
				r.told = k.hash(f.Receipt)
				k.places[r.told] = n
				k.eml = k.eml && isEML(f.Receipt)
				k.msg = k.msg && isMSG(f.Receipt)
			}
		}
		return nil
	})
}

// readSinks reads what the sinks have, all at once: an index is text, files
// are mostly waiting.
func (v *verifier) readSinks(ctx context.Context) error {
	// The manifests and indexes make items; only one may at a time.
	for _, k := range v.sinks {
		if k.plan.Prepared.Record {
			continue
		}
		if err := v.readManifest(ctx, k); err != nil {
			return err
		}
	}
	for _, k := range v.sinks {
		if !k.plan.Prepared.Record && !k.gone {
			v.o.Progress.All.Add(k.result.Messages)
		}
		k.row(int32(max(len(v.table.items), 1) - 1)) // rows don't move while others read and write them
	}
	heads := slices.ContainsFunc(v.sinks, func(k *kept) bool { return k.plan.Prepared.Record })
	errs := make([]error, len(v.sinks)+1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, k := range v.sinks {
			if k.plan.Prepared.Record && errs[len(v.sinks)] == nil {
				errs[len(v.sinks)] = v.readIndex(ctx, k)
			}
		}
	})
	for i, k := range v.sinks {
		if !k.plan.Prepared.Record {
			errs[i] = v.readFiles(ctx, k, heads) // has workers of its own
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// sampled reports whether an item is among those that are read.
func (v *verifier) sampled(n int32) bool {
	if v.o.Sample == 1 {
		return true
	}
	x := (uint64(n) + v.salt) * 0x9e3779b97f4a7c15
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return float64(x>>11)/(1<<53) < v.o.Sample
}

// found notes a finding about a message.
func (v *verifier) found(n int32, f Finding, format string, args ...any) {
	f.item, f.Text = n, fmt.Sprintf(format, args...)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.findings = append(v.findings, f)
}
