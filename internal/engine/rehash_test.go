package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/target"
)

// shelf is a sink of real files with a manifest.
type shelf struct {
	*target.Dir
	root  string
	spoil func() // called when a commit is made, before anything is finished
}

// shelf adds the sink to the rig, and returns its directory.
func (r *rig) shelf(name string, spoil func()) string {
	root := filepath.Join(r.t.TempDir(), name)
	if r.opens == nil {
		r.opens = map[string]func(sink.State) (engine.SinkSession, error){}
	}
	r.opens[name] = func(st sink.State) (engine.SinkSession, error) {
		d, err := target.OpenDir(r.t.Context(), root, target.Owner{Sink: name, Pipeline: "p", Known: st.Known}, st.Checkpoint)
		return &shelf{d, root, spoil}, err
	}
	r.sinks = append(r.sinks, plan.Sink{Name: name, Plugin: "shelf", Prepared: sink.Prepared{Target: root, Lanes: 4, Needs: message.NeedBody, Manifest: true}})
	return root
}

func (s *shelf) Flush(ctx context.Context) (sink.Checkpoint, error) { return s.Dir.Flush(ctx) }

func (s *shelf) Committed(context.Context, sink.Checkpoint) error {
	s.spoil()
	return nil
}

func (s *shelf) Lane(context.Context) (engine.Lane, error) { return &shelfLane{s: s}, nil }

type shelfLane struct {
	s  *shelf
	wg sync.WaitGroup
}

func (l *shelfLane) Put(_ context.Context, m *message.Message, done func(sink.Receipt, error)) error {
	name := fmt.Sprintf("%s/%d.eml", m.ID.Mailbox, m.ID.UID)
	n, err := l.s.Put(m, name)
	l.wg.Go(func() { done(sink.Receipt{Path: name, Octets: n}, err) })
	return nil
}

func (l *shelfLane) Close() error {
	l.wg.Wait()
	return nil
}

// A message whose file isn't what was written stays on the server; it is told,
// the exit code says so, and when the file is put back the next run goes on.
func TestFilesAreReadBackBeforeTheServerIsTouched(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(file string) error
		want  string
	}{
		"missing":     {os.Remove, "isn't there"},
		"cut short":   {func(f string) error { return os.Truncate(f, 10) }, "has 10 octets"},
		"empty":       {func(f string) error { return os.Truncate(f, 0) }, "has 0 octets"},
		"one bit":     {flip, "has other octets than were written"},
		"a directory": {func(f string) error { os.Remove(f); return os.Mkdir(f, 0o755) }, "it is no regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(60, "INBOX", "Sent")
			s.onFinish = func(message.ID, source.Action) error { return nil }
			r := newRig(t, s)
			var root string
			var mu sync.Mutex
			was := map[string][]byte{}
			bad := func(mailbox string, uid int) bool { return mailbox == "INBOX" && (uid == 7 || uid == 42) }
			spoil := func() {
				mu.Lock()
				defer mu.Unlock()
				for _, uid := range []int{7, 42} {
					file := filepath.Join(root, "INBOX", fmt.Sprint(uid, ".eml"))
					octets, err := os.ReadFile(file)
					if err != nil || was[file] != nil {
						continue
					}
					was[file] = octets
					if err := tt.spoil(file); err != nil {
						t.Error(err)
					}
				}
			}
			root = r.shelf("shelf", spoil)
			r.after(plan.After{Action: source.Action{Delete: true}, Rehash: true, Batch: 9})
			var told []string
			r.opts.Events = func(e engine.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == engine.AccountNote {
					told = append(told, e.Text)
				}
			}
			res := r.run()
			r.wantExit(res, engine.ExitIncomplete)
			wantDone := func(bad func(string, int) bool) {
				t.Helper()
				want := map[string]int{}
				for _, m := range s.mailboxes {
					for uid := 1; uid <= 60; uid++ {
						if !bad(m, uid) {
							want[fmt.Sprint(m, " ", uid, " true")] = 1
						}
					}
				}
				if diff := cmp.Diff(want, s.done); diff != "" {
					t.Error(diff)
				}
			}
			wantDone(bad)
			if n := len(told); n != 2 || !strings.Contains(told[0], "stays as it is on the server") || !strings.Contains(told[0], tt.want) {
				t.Errorf("%d notes: %q", n, told)
			}
			sum := res.Accounts[0].Mailboxes[slices.IndexFunc(res.Accounts[0].Mailboxes, func(s engine.Sum) bool { return s.Mailbox == "INBOX" })]
			if sum.Complete || sum.Problem == nil || !strings.Contains(sum.Problem.Error(), "2 exported messages stay") || !strings.Contains(sum.Problem.Error(), tt.want) {
				t.Errorf("INBOX: complete %t, %v", sum.Complete, sum.Problem)
			}

			// Nothing is forgotten: the same again, and done when the files are back.
			r.wantExit(r.run(), engine.ExitIncomplete)
			wantDone(bad)
			for file, octets := range was {
				os.Remove(file)
				if err := os.WriteFile(file, octets, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r.wantExit(r.run(), engine.ExitDone)
			wantDone(func(string, int) bool { return false })
		})
	}
}

// flip changes one bit.
func flip(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	b = bytes.Clone(b)
	b[len(b)/2] ^= 4
	return os.WriteFile(file, b, 0o644)
}
