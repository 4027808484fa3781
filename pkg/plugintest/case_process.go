package plugintest

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// processCases are what only a process can keep or break.
func processCases() []testCase {
	return []testCase{
		{name: "bounded-memory", process: true, promise: "A message of 64 MiB passes without the process growing by as much as half of it.", run: boundedMemory},
		{name: "serves-many-sessions", process: true, promise: "Sessions of one process don't know of each other.", run: servesManySessions},
		{name: "prints-nothing", process: true, promise: "Nothing is printed on the standard output.", run: printsNothing},
		{name: "leaves-nothing", process: true, promise: "Asked to end it ends, and leaves no child and no socket.", run: leavesNothing},
		{name: "ends-with-its-host", process: true, promise: "When the host is gone, it ends by itself.", run: endsWithItsHost},
	}
}

func servesManySessions(a *attempt) {
	first := a.settings()
	second, _ := a.elsewhere()
	switch a.d.kind {
	case wire.KindSource:
		one, two := openSource(a, first), openSource(a, second)
		box := one.box(a)
		all := ids(one.list(a, box.Name, 20))
		one.fetch(a, box.Name, all)
		one.close(a)
		two.fetch(a, box.Name, all)
		two.close(a)
	case wire.KindSink:
		mails := ordinary(8)
		one, two := openSink(a, first, nil), openSink(a, second, nil)
		for _, m := range mails {
			one.write(a, m)
			two.write(a, m)
		}
		one.commit(a)
		one.close(a)
		two.commit(a)
		two.close(a)
	default:
		one, two := openStage(a, first), openStage(a, second)
		for _, m := range ordinary(8) {
			if x, y := one.apply(a, m), two.apply(a, m); x != y {
				a.fail("two sessions judge %s differently", m.what)
			}
		}
		one.close(a)
		for _, m := range ordinary(2) {
			two.apply(a, m)
		}
		two.close(a)
	}
}

func printsNothing(a *attempt) {
	exercise(a, a.settings())
	a.must(a.subject.end(), "end the plugin")
	if _, stdout := a.said(); len(stdout) > 0 {
		a.fail("it printed on its standard output: %q", words(stdout))
	}
}

func leavesNothing(a *attempt) {
	exercise(a, a.settings())
	a.must(a.subject.end(), "end the plugin")
	all, _ := a.said()
	for _, left := range from(all, "host") {
		a.fail("%s", left)
	}
}

func endsWithItsHost(a *attempt) {
	exercise(a, a.settings())
	p, ok := a.subject.(*process)
	if !ok {
		a.leave("it is this process")
	}
	if !p.host.Abandon(stopLimit * 2) {
		a.fail("it still ran %v after its host was gone: the host's stream Attach had broken and its standard input was closed", stopLimit*2)
	}
}

// memoryLimit is how much a process may grow, of each octet of a large
// message.
const memoryLimit = 2

func boundedMemory(a *attempt) {
	if runtime.GOOS != "linux" {
		a.leave("memory is measured on Linux only")
	}
	if raced {
		a.leave("under the race detector memory says nothing")
	}
	exercise(a, a.settings())
	before := peak(a)
	size := a.f.Large
	switch a.d.kind {
	case wire.KindSource:
		size = fetchLarge(a)
	case wire.KindSink:
		c, _ := a.elsewhere()
		s := openSink(a, c, nil)
		if !s.prepared.Needs.Has(message.NeedBody) {
			a.leave("it gets no bodies")
		}
		m := mail{what: fmt.Sprintf("a mail of %d MiB", size>>20), id: mailID("INBOX", 1)}
		_, err := s.send(a.ctx, m, message.NewBody(large(size), size, nil))
		a.must(err, "Write %s", m.what)
		s.commit(a)
		s.close(a)
	default:
		s := openStage(a, a.settings())
		if !s.prepared.Needs.Has(message.NeedBody) {
			a.leave("it gets no bodies")
		}
		_, _, err := s.try(a.ctx, mail{what: "a large mail", id: mailID("INBOX", 1)}, message.NewBody(large(size), size, nil))
		a.must(err, "Apply a mail of %d MiB", size>>20)
		s.close(a)
	}
	if grown := peak(a) - before; grown > size/memoryLimit {
		a.fail("the process grew by %d MiB while a message of %d MiB passed", grown>>20, size>>20)
	}
}

// fetchLarge fetches the largest message that the source lists.
func fetchLarge(a *attempt) int64 {
	s := openSource(a, a.settings())
	var best message.Summary
	for _, m := range s.mailboxes(a) {
		if !m.Selectable || !s.needs(a).Has(message.NeedSize) {
			continue
		}
		for _, sum := range s.list(a, m.Name, listLimit) {
			if sum.Size > best.Size {
				best = sum
			}
		}
	}
	if best.Size < a.f.Large {
		a.leave("the largest message that was listed has %d octets, less than %d", best.Size, a.f.Large)
	}
	req := source.FetchRequest{Mailbox: best.ID.Mailbox, Needs: message.NeedBody, IDs: batches([]message.ID{best.ID})}
	for f, err := range s.Source.Fetch(a.ctx, req) {
		a.must(err, "Fetch %v", best.ID)
		a.must(f.Err, "Fetch %v", best.ID)
		_, err := f.Message.Body.WriteTo(io.Discard)
		a.must(err, "read the body of %v", best.ID)
	}
	s.close(a)
	return best.Size
}

// peak is the most memory that the process has held.
func peak(a *attempt) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.pid()))
	a.must(err, "measure the process's memory")
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			a.must(err, "measure the process's memory")
			return kib << 10
		}
	}
	a.give("the system doesn't tell the process's memory")
	return 0
}
