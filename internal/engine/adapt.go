package engine

import (
	"fmt"
	"slices"

	"github.com/mailhaul/pipeline/pkg/message"
)

// How a sample is taken. To read headers first is worth a request of its own
// only where they refuse enough: else most messages are asked for twice.
const (
	sampleOne   = 16   // of so many messages one is read by its header first
	sampleLeast = 16   // messages of a sample; with less than twice as many there is none
	priorMost   = 32   // messages: what the page before counts for, beside the sample of this one
	askOctets   = 1024 // what a second request for a message costs, in octets that could have come meanwhile
)

// survey is what an account has learned of the stages that read headers: how
// many of the messages pass them. It decides whether the headers of the next
// messages are asked for first or come with the bodies. The decision follows
// from the listing alone; what is exported never depends on it (I2). It is
// used by the goroutine that lists.
type survey struct {
	asked, passed int64 // of the page before, read by their headers
	headers       int64 // octets of one, about
	size          int64 // octets of a message, about; 0 unknown
	overhead      int64 // askOctets; 0 where octets are what counts
	told          bool
}

// surveyPage is what is learned of one page while it is deepened.
type surveyPage struct {
	from           int64 // its first message, counted over the listing from 1
	asked, passed  int64 // read by their headers
	headers        int64 // octets of those
	sized, octets  int64 // messages whose size was looked at, and what they have
	sampled, mixed bool  // a sample was taken; some went on without their headers
}

// adapts reports whether the headers of an item, of which more must be known,
// may come with its body: it has been refused by nothing, and some sink still
// wants its octets.
func (a *account) adapts(it *item, more message.Needs) bool {
	if !a.adaptive || a.claiming || more != message.NeedHeaders || it.final != nil || it.alone {
		return false
	}
	for i, o := range a.e.outlets {
		if s := it.slots[i].state; !o.plan.Prepared.Record && (s == slotIdle || s == slotTodo) && o.broken() == nil {
			return true
		}
	}
	return false
}

// share returns which part of the messages passes, by the page before and by
// what is known of this one. It is never quite 0 or 1.
func (s *survey) share(p *surveyPage) float64 {
	asked, passed := float64(p.asked), float64(p.passed)
	if s.asked > 0 {
		weight := float64(min(s.asked, priorMost))
		asked += weight
		passed += weight * float64(s.passed) / float64(s.asked)
	}
	return (passed + 1) / (asked + 2)
}

// cheaper reports whether a message of that size is to be fetched at once,
// when that share of messages passes: the octets that the refused ones bring
// for nothing are fewer than those of all the headers.
func (s *survey) cheaper(share float64, size int64) bool {
	return (1-share)*float64(size) < float64(s.headers+s.overhead)
}

// ready reports whether the next page is worth a sample: as far as is known,
// a message of common size is better fetched at once.
func (s *survey) ready() bool {
	size := s.size
	if size == 0 {
		size = 4096
	}
	return s.asked >= sampleLeast && s.cheaper(s.share(&surveyPage{}), size)
}

// close makes a page what the next one is judged by.
func (s *survey) close(p *surveyPage) {
	if p.asked > 0 {
		// A sample says less than a page, but says it of what comes next.
		s.asked, s.passed, s.headers = p.asked, p.passed, p.headers/p.asked
	}
	if p.sized > 0 {
		s.size = p.octets / p.sized
	}
}

// firstNeeds returns what a page is listed with. Where headers may come with
// the bodies, sizes are asked for in their place: they decide.
func (a *account) firstNeeds() message.Needs {
	n := a.plan.FirstNeeds
	if a.adaptive && !a.claiming && n.Has(message.NeedHeaders) && a.survey.ready() {
		n = n&^message.NeedHeaders | message.NeedSize
	}
	return n
}

// split divides the items of a page whose headers are wanted: those that are
// asked for needs first, and those that are fetched as they are. The rest
// waits for what a sample says.
func (a *account) split(p *surveyPage, items []*item) (needs message.Needs, ask, direct, rest []*item) {
	if !p.sampled && (!a.survey.ready() || len(items) < 2*sampleLeast) {
		return message.NeedHeaders, items, nil, nil
	}
	if slices.ContainsFunc(items, func(it *item) bool { return !it.sum.Have.Has(message.NeedSize) }) {
		return message.NeedSize, items, nil, nil
	}
	if !p.sampled {
		p.sampled = true
		every := min(sampleOne, len(items)/sampleLeast)
		for i, it := range items {
			p.sized++
			p.octets += it.sum.Size
			if i%every == 0 {
				ask = append(ask, it)
			} else {
				rest = append(rest, it)
			}
		}
		return message.NeedHeaders, ask, nil, rest
	}
	share := a.survey.share(p)
	for _, it := range items {
		if a.survey.cheaper(share, it.sum.Size) {
			direct = append(direct, it)
		} else {
			ask = append(ask, it)
		}
	}
	return message.NeedHeaders, ask, direct, nil
}

// inOrder returns those of items that are in some, in the order of items: a
// server gives what lies side by side for less.
func inOrder(items, some []*item) []*item {
	in := make(map[*item]bool, len(some))
	for _, it := range some {
		in[it] = true
	}
	return slices.DeleteFunc(slices.Clone(items), func(it *item) bool { return !in[it] })
}

// learn notes what became of an item that was read by its header.
func (p *surveyPage) learn(it *item, passed bool) {
	if it.sum.Header == nil || it.passing > 0 {
		return
	}
	p.asked++
	p.headers += int64(len(it.sum.Header.Raw()))
	if passed {
		p.passed++
	}
}

// withBodies notes that the headers of so many messages of a page come with
// their bodies, and tells it once an account.
func (a *account) withBodies(b *box, p *surveyPage, n int) {
	if n == 0 {
		return
	}
	p.mixed = true
	b.mu.Lock()
	if b.withBodies == 0 {
		b.withBodiesFrom = p.from
	}
	b.withBodies += int64(n)
	b.mu.Unlock()
	if a.survey.told {
		return
	}
	a.survey.told = true
	asked, passed := a.survey.asked+p.asked, a.survey.passed+p.passed
	a.e.note(Event{Kind: AccountNote, Source: a.plan.Name, Mailbox: b.name, Count: int64(n),
		Text: fmt.Sprintf("%s: headers come with the bodies from message %s on, where a sample says so: %d %% pass", b.name, thousands(p.from), passed*100/max(1, asked))})
}
