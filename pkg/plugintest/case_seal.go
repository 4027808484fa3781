package plugintest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// sealsEpochs: an epoch is sealed, more is written before its Flush and beside
// it, and the session ends without a second commit. Opened at the checkpoint the
// sink has the epoch, and knows nothing of the rest: whether that is written
// again, or is gone from the server by then.
func sealsEpochs(a *attempt) {
	const sealed, before, beside, later = 10, 16, 22, 30
	mails := ordinary(40)
	again := slices.Concat(mails[:sealed], mails[later:]) // the others are gone from the server
	for _, tt := range []struct {
		what    string
		rest    []mail
		want    []mail
		strange []mail // whose files may be there, since nobody has replaced them
	}{
		{"written again", mails[sealed:], mails, nil},
		{"not written again", mails[later:], again, mails[sealed:later]},
	} {
		a.must(os.RemoveAll(filepath.Join(filepath.Dir(a.dir), "undisturbed")), "clean up")
		a.must(os.RemoveAll(a.dir), "clean up")
		a.must(os.MkdirAll(a.dir, 0o755), "clean up")
		c := a.settings()
		s := openSink(a, c, nil)
		if s.prepared.Record || !s.Seals() {
			a.leave("it doesn't seal epochs")
		}
		want := undisturbed(a, tt.want)
		paths := map[message.ID]string{}
		write := func(mails []mail) {
			for _, m := range mails {
				paths[m.id] = s.write(a, m).Path
			}
		}
		write(mails[:sealed])
		a.must(s.Seal(a.ctx), "Seal")
		write(mails[sealed:before])
		cp := s.flushBeside(a, func() { write(mails[before:beside]) })
		a.must(s.Committed(a.ctx, cp), "Committed")
		s.covers(a, cp, mails[:sealed], paths)
		a.must(s.Seal(a.ctx), "Seal")
		next := s.flushBeside(a, func() { write(mails[beside:later]) })
		s.covers(a, next, mails[:beside], paths)
		s.close(a)
		s = openSink(a, c, cp)
		s.covers(a, cp, mails[:sealed], paths)
		write(tt.rest[:5])
		a.must(s.Seal(a.ctx), "Seal")
		s.commit(a)
		write(tt.rest[5:])
		cp = s.commit(a) // as it is of a sink that seals nothing
		s.close(a)
		openSink(a, c, cp).close(a)
		got := tree(a, a.dir, false)
		for _, m := range tt.strange {
			own := filepath.Join(s.prepared.Target, filepath.FromSlash(paths[m.id]))
			maps.DeleteFunc(got, func(path, _ string) bool {
				rel, err := filepath.Rel(own, filepath.Join(a.dir, path)) // a file, or one of a folder
				_, wanted := want[path]
				return err == nil && filepath.IsLocal(rel) && !wanted
			})
		}
		if d := differ(got, want); d != "" {
			a.fail("opened at the checkpoint of a sealed epoch, with what came after it %s, it isn't as if nothing had happened: %s", tt.what, d)
		}
	}
}

// flushBeside flushes while f writes.
func (s *openedSink) flushBeside(a *attempt, f func()) sink.Checkpoint {
	var cp sink.Checkpoint
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { cp, err = s.Flush(a.ctx) })
	func() {
		defer wg.Wait() // f may end the case
		f()
	}()
	a.must(err, "Flush")
	return cp
}

// covers checks that a checkpoint covers the mails and no others, as far as a
// manifest tells.
func (s *openedSink) covers(a *attempt, cp sink.Checkpoint, mails []mail, paths map[message.ID]string) {
	length, ok := target.CommittedManifest(cp)
	if !s.prepared.Manifest || !ok {
		return
	}
	want := map[message.ID]bool{}
	for _, m := range mails {
		want[m.id] = true
	}
	for l, err := range target.ManifestLines(s.prepared.Target) {
		a.must(err, "read the manifest")
		if l.End > length {
			break
		}
		if l.Err != nil {
			a.fail("the checkpoint covers row %d of the manifest, which isn't one: %v", l.Number, l.Err)
			return
		}
		if !want[l.Row.ID] {
			a.fail("the checkpoint covers %v, which was written after the Seal", l.Row.ID)
			return
		}
		delete(want, l.Row.ID)
	}
	for id := range want {
		if _, err := os.Stat(filepath.Join(s.prepared.Target, filepath.FromSlash(paths[id]))); err == nil {
			a.fail("the checkpoint doesn't cover %v, which was written before the Seal", id)
			return
		}
	}
}
