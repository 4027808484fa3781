package plugintest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing/iotest"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

func sinkCases() []testCase {
	kinds := oneOf(wire.KindSink)
	return []testCase{
		{name: "prepares-without-traces", kinds: kinds, promise: "Prepare answers from the config alone, the same each time, and touches nothing.", run: preparesWithoutTraces},
		{name: "writes", kinds: kinds, promise: "Write stores a message, and its receipt is true: the path is below the target and has the octets.", run: writes},
		{name: "writes-concurrently", kinds: kinds, promise: "As many Writes as there are lanes run at once, and each stores its own message.", run: writesConcurrently},
		{name: "writes-odd-bodies", kinds: kinds, promise: "An empty body, NULs or rubbish is written, or is that message's own error.", run: writesOddBodies},
		{name: "survives-hostile-names", kinds: kinds, promise: "Whatever a mailbox or subject is called, nothing is written outside the target, and no message over another.", run: survivesHostileNames},
		{name: "discards-broken-bodies", kinds: kinds, promise: "A body that ends in an error was never written: Write returns an error, and nothing of it is left.", run: discardsBrokenBodies},
		{name: "same-message-once", kinds: kinds, promise: "The same message again gives the same receipt and the same result.", run: sameMessageOnce},
		{name: "replaces-records", kinds: kinds, promise: "A record that replaces an earlier one leaves one of both.", run: replacesRecords},
		{name: "seals-epochs", kinds: kinds, promise: "The Flush after a Seal makes durable what was written before it, while more is written, and its checkpoint covers no more.", run: sealsEpochs},
		{name: "fences-owners", kinds: kinds, promise: "What an owner writes who has lost its task changes nothing that counts, and Merge makes of what counts what one session would have left.", run: fencesOwners},
		{name: "cancels-writes", kinds: kinds, promise: "Write ends within a second when its context is cancelled, and the session goes on.", run: cancelsWrites},
		{name: "waits-for-slow-bodies", kinds: kinds, promise: "A body may be slow for as long as it likes.", run: waitsForSlowBodies},
		{name: "keeps-what-was-flushed", kinds: kinds, process: true, promise: "What was flushed is there after kill -9.", run: keepsWhatWasFlushed},
		{name: "resumes-at-checkpoint", kinds: kinds, process: true, promise: "After kill -9, opened with the last committed checkpoint, it ends as if nothing had happened.", run: resumesAtCheckpoint},
	}
}

// opened is a sink's session with what Prepare said.
type openedSink struct {
	sinkSession
	prepared wire.Prepared
}

func state(cp sink.Checkpoint, known bool) sink.State {
	return sink.State{Name: "suite", Pipeline: "plugintest", Checkpoint: cp, Known: known}
}

// openSink opens a session. With a checkpoint the ledger is said to know the
// target.
func openSink(a *attempt, c settings, cp sink.Checkpoint) *openedSink {
	p, err := a.prepare(a.ctx, c)
	a.must(err, "Prepare")
	s, err := a.sink(a.ctx, c, state(cp, cp != nil))
	a.must(err, "Open")
	return &openedSink{s, p}
}

// send writes a mail and returns what Write did.
func (s *openedSink) send(ctx context.Context, m mail, body *message.Body) (sink.Receipt, error) {
	msg := m.message(s.prepared.Needs, s.prepared.Record, body)
	defer msg.Body.Release()
	return s.Write(ctx, msg)
}

// write writes a mail that can be written.
func (s *openedSink) write(a *attempt, m mail) sink.Receipt {
	r, err := s.send(a.ctx, m, nil)
	a.must(err, "Write %s", m.what)
	return r
}

// commit flushes, and commits the checkpoint.
func (s *openedSink) commit(a *attempt) sink.Checkpoint {
	cp, err := s.Flush(a.ctx)
	a.must(err, "Flush")
	a.must(s.Committed(a.ctx, cp), "Committed")
	return cp
}

func (s *openedSink) close(a *attempt) { a.must(s.Close(), "Close") }

// tree returns the digests of the files below dir, of a record sink's as a set
// of lines. What begins with a dot is a sink's own business.
func tree(a *attempt, dir string, asLines bool) map[string]string {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != dir && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if asLines {
			all := slices.Sorted(strings.Lines(string(b)))
			b = []byte(strings.Join(all, ""))
		}
		sum := sha256.Sum256(b)
		rel, err := filepath.Rel(dir, path)
		out[rel] = fmt.Sprintf("%d octets, sha256 %s", len(b), hex.EncodeToString(sum[:6]))
		return err
	})
	a.must(err, "look at what was written")
	return out
}

// differ says how two trees do; empty when they don't.
func differ(got, want map[string]string) string {
	var out []string
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[path]; !ok {
			out = append(out, path+" is missing")
		} else if g != want[path] {
			out = append(out, fmt.Sprintf("%s is of %s instead of %s", path, g, want[path]))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			out = append(out, path+" is there too")
		}
	}
	return words(out)
}

// elsewhere returns the settings for a second target, beside the first.
func (a *attempt) elsewhere() (settings, string) {
	dir := filepath.Join(filepath.Dir(a.dir), "undisturbed")
	a.must(os.MkdirAll(dir, 0o755), "make a directory")
	d, err := a.describe(a.ctx)
	a.must(err, "Describe")
	return settle(a.f.Config, d.Schema, dir), dir
}

// undisturbed returns the tree of a run of mails in which nothing happens.
func undisturbed(a *attempt, mails []mail) map[string]string {
	c, dir := a.elsewhere()
	s := openSink(a, c, nil)
	for _, m := range mails {
		s.write(a, m)
	}
	s.commit(a)
	s.close(a)
	return tree(a, dir, s.prepared.Record)
}

func preparesWithoutTraces(a *attempt) {
	c := a.settings()
	p, err := a.prepare(a.ctx, c)
	a.must(err, "Prepare")
	again, err := a.prepare(a.ctx, c)
	a.must(err, "Prepare")
	if p != again {
		a.fail("Prepare answered %+v and then %+v", p, again)
	}
	if p.Target == "" {
		a.fail("it names no target: the ledger keys on it")
	}
	if p.Record && p.Needs.Has(message.NeedBody) {
		a.fail("it is a record sink and needs the body, which such a one never gets")
	}
	if found := everything(a, a.dir); len(found) > 0 {
		a.fail("Prepare made %s", words(found))
	}
}

func everything(a *attempt, dir string) []string {
	entries, err := os.ReadDir(dir)
	a.must(err, "look at the case's directory")
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func writes(a *attempt) {
	s := openSink(a, a.settings(), nil)
	receipts := map[string]mail{}
	for _, m := range ordinary(20) {
		r := s.write(a, m)
		s.truthful(a, m, r, receipts)
	}
	s.commit(a)
	for path, m := range receipts {
		s.there(a, m, path)
	}
	s.close(a)
}

// truthful checks a receipt.
func (s *openedSink) truthful(a *attempt, m mail, r sink.Receipt, seen map[string]mail) {
	if r.Octets < 0 {
		a.fail("the receipt of %s counts %d octets", m.what, r.Octets)
	}
	if r.Path == "" {
		return
	}
	if !filepath.IsLocal(filepath.FromSlash(r.Path)) {
		a.fail("the receipt of %s has the path %q, which leads out of the target", m.what, r.Path)
	}
	if before, ok := seen[r.Path]; ok && before.id != m.id {
		a.fail("%s and %s were written to the same path %q", before.what, m.what, r.Path)
	}
	seen[r.Path] = m
}

// there checks that a receipt's file is, where the target is a directory here.
func (s *openedSink) there(a *attempt, m mail, path string) {
	if !strings.HasPrefix(s.prepared.Target, a.dir) {
		return
	}
	info, err := os.Stat(filepath.Join(s.prepared.Target, filepath.FromSlash(path)))
	switch {
	case err != nil:
		a.fail("the receipt of %s names a file that isn't there: %v", m.what, err)
	case info.Mode().IsRegular() && len(m.octets) > 0 && info.Size() == 0:
		a.fail("the file of %s is empty", m.what)
	}
}

func writesConcurrently(a *attempt) {
	mails := ordinary(60)
	want := undisturbed(a, mails)
	s := openSink(a, a.settings(), nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := 0
	for range s.prepared.Lanes {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(mails) {
					return
				}
				if _, err := s.send(a.ctx, mails[i], nil); err != nil {
					mu.Lock()
					a.fail("Write %s, with %d at once: %s", mails[i].what, s.prepared.Lanes, explain(err))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	s.commit(a)
	s.close(a)
	if d := differ(tree(a, a.dir, s.prepared.Record), want); d != "" {
		a.fail("written by %d lanes at once it isn't the same as one by one: %s", s.prepared.Lanes, d)
	}
}

func writesOddBodies(a *attempt) {
	s := openSink(a, a.settings(), nil)
	receipts := map[string]mail{}
	for _, m := range odd() {
		r, err := s.send(a.ctx, m, nil)
		if err != nil {
			a.class(err, fault.Message, "Write "+m.what)
			continue
		}
		s.truthful(a, m, r, receipts)
	}
	s.write(a, ordinary(1)[0])
	s.commit(a)
	s.close(a)
}

func survivesHostileNames(a *attempt) {
	outer := filepath.Dir(a.dir)
	before := everything(a, outer)
	s := openSink(a, a.settings(), nil)
	receipts := map[string]mail{}
	for _, m := range hostile() {
		r, err := s.send(a.ctx, m, nil)
		if err != nil {
			a.class(err, fault.Message, "Write a mail of the "+m.what)
			continue
		}
		s.truthful(a, m, r, receipts)
	}
	s.commit(a)
	s.close(a)
	if after := everything(a, outer); !slices.Equal(before, after) {
		a.fail("something was written outside of the target: beside the case's directory there are %s", words(after))
	}
	if inside := strings.TrimPrefix(s.prepared.Target, a.dir+string(filepath.Separator)); inside != s.prepared.Target {
		own := strings.Split(inside, string(filepath.Separator))[0]
		for _, name := range everything(a, a.dir) {
			if name != own && !strings.HasPrefix(name, ".") {
				a.fail("something was written outside of the target: %s", name)
			}
		}
	}
}

func discardsBrokenBodies(a *attempt) {
	s := openSink(a, a.settings(), nil)
	if !s.prepared.Needs.Has(message.NeedBody) {
		a.leave("it gets no bodies")
	}
	mails := ordinary(6)
	want := undisturbed(a, mails[:3])
	cut := errors.New("the connection broke")
	for i, m := range mails {
		if i < 3 {
			s.write(a, m)
			continue
		}
		half := bytes.NewReader(m.octets[:len(m.octets)/2])
		body := message.NewBody(io.MultiReader(half, iotest.ErrReader(cut)), int64(len(m.octets)), nil)
		if r, err := s.send(a.ctx, m, body); err == nil {
			a.fail("Write took a body that ended in an error after half of it, and gave the receipt %+v", r)
		}
	}
	s.commit(a)
	s.close(a)
	if d := differ(tree(a, a.dir, s.prepared.Record), want); d != "" {
		a.fail("something is left of mails whose bodies broke off: %s", d)
	}
}

func sameMessageOnce(a *attempt) {
	c := a.settings()
	s := openSink(a, c, nil)
	mails := ordinary(6)
	if s.prepared.Record {
		a.leave("a record sink is told by Replaces: see replaces-records")
	}
	want := undisturbed(a, mails)
	first := map[message.ID]sink.Receipt{}
	for range 2 {
		for _, m := range mails {
			r := s.write(a, m)
			if before, ok := first[m.id]; ok && before != r {
				a.fail("%s got the receipt %+v, and the second time %+v", m.what, before, r)
			}
			first[m.id] = r
		}
	}
	cp := s.commit(a)
	s.close(a)
	s = openSink(a, c, cp)
	for _, m := range mails[:3] {
		if r := s.write(a, m); r != first[m.id] {
			a.fail("%s got the receipt %+v, and in the next session %+v", m.what, first[m.id], r)
		}
	}
	s.commit(a)
	s.close(a)
	if d := differ(tree(a, a.dir, false), want); d != "" {
		a.fail("written twice it isn't the same as written once: %s", d)
	}
}

func replacesRecords(a *attempt) {
	c := a.settings()
	s := openSink(a, c, nil)
	if !s.prepared.Record {
		a.leave("it isn't a record sink")
	}
	mails := ordinary(6)
	want := undisturbed(a, mails)
	early := func(m mail) *message.Message {
		msg := m.message(s.prepared.Needs, true, nil)
		msg.Record.Files = nil
		return msg
	}
	for i, m := range mails {
		if i%2 == 0 {
			s.write(a, m)
			continue
		}
		_, err := s.Write(a.ctx, early(m))
		a.must(err, "Write %s", m.what)
	}
	cp := s.commit(a)
	s.close(a)
	s = openSink(a, c, cp)
	for i, m := range mails {
		if i%2 == 1 {
			msg := m.message(s.prepared.Needs, true, nil)
			msg.Record.Replaces = true
			_, err := s.Write(a.ctx, msg)
			a.must(err, "Write %s again", m.what)
		}
	}
	s.commit(a)
	s.close(a)
	if d := differ(tree(a, a.dir, true), want); d != "" {
		a.fail("after replacing half of the records: %s", d)
	}
}

func cancelsWrites(a *attempt) {
	s := openSink(a, a.settings(), nil)
	if !s.prepared.Needs.Has(message.NeedBody) {
		a.leave("it gets no bodies")
	}
	mails := ordinary(3)
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	stuck := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		body := message.NewBody(&stalled{ctx: ctx, r: bytes.NewReader(mails[0].octets[:40]), stuck: stuck}, int64(len(mails[0].octets)), nil)
		_, err := s.send(ctx, mails[0], body)
		ended <- err
	}()
	<-stuck
	cancel()
	a.soon("Write", func() {
		if <-ended == nil {
			a.fail("Write of a body that never came was called a success")
		}
	})
	s.write(a, mails[1])
	s.commit(a)
	s.close(a)
	want := undisturbed(a, mails[1:2])
	if d := differ(tree(a, a.dir, s.prepared.Record), want); d != "" {
		a.fail("after a Write was cancelled: %s", d)
	}
}

func waitsForSlowBodies(a *attempt) {
	s := openSink(a, a.settings(), nil)
	if !s.prepared.Needs.Has(message.NeedBody) {
		a.leave("it gets no bodies")
	}
	for i, m := range ordinary(2) {
		if i == 0 {
			m.octets = append(m.octets, noise(1<<20)...) // more than one frame
		}
		_, err := s.send(a.ctx, m, message.NewBody(slowly(m.octets, a.f.Patience), int64(len(m.octets)), nil))
		a.must(err, "Write %s, whose body took %v", m.what, a.f.Patience)
	}
	s.commit(a)
	s.close(a)
}

func keepsWhatWasFlushed(a *attempt) {
	s := openSink(a, a.settings(), nil)
	mails := ordinary(30)
	for _, m := range mails[:20] {
		s.write(a, m)
	}
	_, err := s.Flush(a.ctx)
	a.must(err, "Flush")
	want := tree(a, a.dir, false)
	for _, m := range mails[20:] {
		s.write(a, m)
	}
	a.must(a.kill(), "kill -9")
	got := tree(a, a.dir, false)
	for _, path := range slices.Sorted(maps.Keys(want)) {
		// A record sink's file may have grown since.
		if g, ok := got[path]; !ok || g != want[path] && !s.prepared.Record {
			a.fail("after kill -9 %s isn't as it was flushed: %q instead of %q", path, g, want[path])
		}
	}
}

func resumesAtCheckpoint(a *attempt) {
	mails := ordinary(40)
	want := undisturbed(a, mails)
	for _, committed := range []bool{true, false} {
		what := "after a second Flush that the ledger " + map[bool]string{true: "committed", false: "did not commit"}[committed]
		a.must(os.RemoveAll(a.dir), "clean up")
		a.must(os.MkdirAll(a.dir, 0o755), "clean up")
		c := a.settings()
		s := openSink(a, c, nil)
		for _, m := range mails[:10] {
			s.write(a, m)
		}
		cp, rest := s.commit(a), mails[10:]
		for _, m := range mails[10:20] {
			s.write(a, m)
		}
		next, err := s.Flush(a.ctx)
		a.must(err, "Flush")
		if committed {
			cp, rest = next, mails[20:]
		}
		for _, m := range mails[20:30] {
			s.write(a, m)
		}
		a.must(a.kill(), "kill -9")
		s = openAgain(a, c, cp)
		for _, m := range rest {
			s.write(a, m)
		}
		s.commit(a)
		s.close(a)
		if d := differ(tree(a, a.dir, s.prepared.Record), want); d != "" {
			a.fail("%s and kill -9, it isn't as if nothing had happened: %s", what, d)
		}
	}
}

// openAgain opens a session after a kill, which the host may notice only now.
func openAgain(a *attempt, c settings, cp sink.Checkpoint) *openedSink {
	if _, err := a.prepare(a.ctx, c); fault.Is(err, fault.Crashed) {
		_, err = a.prepare(a.ctx, c)
		a.must(err, "Prepare after kill -9")
	}
	p, err := a.prepare(a.ctx, c)
	a.must(err, "Prepare after kill -9")
	s, err := a.sink(a.ctx, c, state(cp, true))
	a.must(err, "Open after kill -9")
	return &openedSink{s, p}
}
