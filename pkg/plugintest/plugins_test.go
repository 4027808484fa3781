package plugintest_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/pkg/stage"
	"github.com/mailhaul/pipeline/pkg/target"
)

// The plugins here keep the contract; each fault is a way to break it.

type heapConfig struct {
	Messages int         `json:"messages" default:"12" min:"0" doc:"how many there are in INBOX"`
	Large    int64       `json:"large" doc:"octets of one more message, in a mailbox of its own"`
	Password spec.Secret `json:"password" doc:"what the server wants to hear"`
}

const password = "correct horse"

// heap returns a source whose messages are made up.
func heap(broken string) source.Plugin[heapConfig] {
	p := source.Plugin[heapConfig]{
		Name: "heap", Version: "1.0.0", Summary: "messages that are made up",
		Provides: message.NeedSize | message.NeedInternalDate | message.NeedFlags | message.NeedBody,
	}
	if broken == "version" {
		p.Version = "latest"
	}
	var sessions atomic.Int32
	p.Open = func(ctx context.Context, c heapConfig, env source.Env) (source.Opened, error) {
		got, err := c.Password.Value(ctx)
		if err != nil {
			return source.Opened{}, err
		}
		switch broken {
		case "log-secret":
			env.Log.Info("logging in", "with", got)
		case "error-secret":
			if got != password {
				return source.Opened{}, fault.New(fault.Auth, "the server refused the password %s", got)
			}
		}
		if err := misbehave(broken); err != nil {
			return source.Opened{}, err
		}
		if got != password {
			return source.Opened{}, fault.New(fault.Auth, "the server refused the password")
		}
		if sessions.Add(1) > 1 && broken == "one-session" {
			return source.Opened{}, fault.New(fault.Unavailable, "there is a session already")
		}
		return source.Opened{Source: &heaped{config: c, broken: broken, left: func() { sessions.Add(-1) }}, Lanes: 3}, nil
	}
	return p
}

type heaped struct {
	config heapConfig
	broken string
	calls  int
	stuck  bool
	next   []string // as the last listing had it

	left    func()
	running atomic.Int32 // calls of Fetch
}

func (h *heaped) Mailboxes(context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		names := []string{"INBOX", "Empty", "Large"}
		if h.calls++; h.broken == "mailboxes" && h.calls%2 == 0 {
			slices.Reverse(names)
		}
		for _, name := range names {
			if !yield(message.Mailbox{Name: name, Selectable: true}, nil) {
				return
			}
		}
	}
}

func (h *heaped) count(mailbox string) int {
	switch {
	case mailbox == "INBOX":
		return h.config.Messages
	case mailbox == "Large" && h.config.Large > 0:
		return 1
	}
	return 0
}

func (h *heaped) id(mailbox string, uid int) message.ID {
	return message.ID{Mailbox: mailbox, UIDValidity: 1, UID: uint32(uid)}
}

func (h *heaped) size(mailbox string, uid int) int64 {
	if mailbox == "Large" {
		return h.config.Large
	}
	return int64(100 + uid*7%5*1000)
}

func (h *heaped) List(ctx context.Context, r source.ListRequest) iter.Seq2[message.Summary, error] {
	return func(yield func(message.Summary, error) bool) {
		if !slices.Contains([]string{"INBOX", "Empty", "Large"}, r.Mailbox) && h.broken != "no-mailbox" {
			yield(message.Summary{}, fault.New(fault.Unavailable, "open %s: there is no such mailbox", r.Mailbox))
			return
		}
		foreseen := h.broken == "next" && slices.Contains(h.next, r.Mailbox)
		h.next = r.Next
		if r.State != nil && h.broken != "state" && !foreseen {
			r.State(message.MailboxState{Messages: int64(h.count(r.Mailbox)), Bytes: -1, UIDValidity: 1})
		}
		skipped, n := 0, 0
		for i := range h.count(r.Mailbox) {
			uid := i + 1
			if r.Newest && (h.broken != "order" || r.Limit > 0 || r.Skip > 0) {
				uid = h.count(r.Mailbox) - i
			}
			s := h.summary(r, uid)
			switch order := cmp.Compare(s.ID.UID, after(r).UID); {
			case r.IDs != nil && !slices.Contains(r.IDs, s.ID) && h.broken != "asked":
				continue
			case r.After != nil && h.broken != "pages" && (order == 0 || order < 0 != r.Newest):
				continue
			case skipped < r.Skip && h.broken != "skip":
				skipped++
				continue
			case r.Limit > 0 && n == r.Limit:
				return
			case ctx.Err() != nil && h.broken != "cancel-list":
				yield(message.Summary{}, ctx.Err())
				return
			}
			if n++; !yield(s, nil) {
				h.stuck = h.broken == "break-off"
				return
			}
			if h.broken == "twice" && uid == 2 && r.State != nil && !yield(s, nil) {
				return
			}
		}
		if h.broken == "cancel-list" && ctx.Err() != nil {
			time.Sleep(3 * time.Second)
		}
	}
}

func after(r source.ListRequest) message.ID {
	if r.After == nil {
		return message.ID{}
	}
	return *r.After
}

func (h *heaped) summary(r source.ListRequest, uid int) message.Summary {
	s := message.Summary{ID: h.id(r.Mailbox, uid), Have: r.Needs & (message.NeedSize | message.NeedInternalDate | message.NeedFlags)}
	size := h.size(r.Mailbox, uid)
	for i, c := range r.Where {
		fails := c.Field == "size" && (c.Op == "<=" && size > c.Size || c.Op == ">" && size <= c.Size)
		if fails || h.broken == "where" && c.Field == "flags" {
			return message.Summary{ID: s.ID, Fails: i + 1}
		}
	}
	if s.Have.Has(message.NeedSize) {
		s.Size = size
	}
	if s.Have.Has(message.NeedInternalDate) {
		s.InternalDate = time.Date(2024, 1, uid, 0, 0, 0, 0, time.UTC)
	}
	return s
}

func (h *heaped) Fetch(ctx context.Context, r source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(yield func(source.Fetched, error) bool) {
		h.running.Add(1)
		defer h.running.Add(-1)
		for ids := range r.IDs {
			for _, id := range ids {
				if h.broken == "race" {
					time.Sleep(5 * time.Millisecond) // so that several run at once
				}
				if h.broken == "unanswered" && id.Mailbox == "Large" {
					continue
				}
				if h.stuck {
					yield(source.Fetched{}, fault.New(fault.Bug, "the connection is in the middle of something"))
					return
				}
				if !yield(h.fetched(ctx, id), nil) {
					return
				}
				if ctx.Err() != nil && h.broken != "cancel-fetch" {
					yield(source.Fetched{}, ctx.Err())
					return
				}
			}
			if h.broken == "cancel-fetch" && ctx.Err() != nil {
				time.Sleep(3 * time.Second)
			}
		}
	}
}

func (h *heaped) fetched(ctx context.Context, id message.ID) source.Fetched {
	if int(id.UID) > h.count(id.Mailbox) {
		class := fault.Gone
		if h.broken == "gone" {
			class = fault.Message
		}
		return source.Fetched{ID: id, Err: fault.New(class, "there is no message %d", id.UID)}
	}
	size := h.size(id.Mailbox, int(id.UID))
	r := io.LimitReader(text{}, size)
	switch {
	case h.broken == "octets" && id.Mailbox == "Large":
		h.calls++
		r = io.MultiReader(strings.NewReader(fmt.Sprintf("X-Call: %08d\r\n", h.calls)), io.LimitReader(text{}, size-18))
	case h.broken == "announced" && id.Mailbox == "Large":
		size++
	case h.broken == "memory" && size > 1<<20:
		r = bytes.NewReader(bytes.Repeat([]byte("x"), int(size)))
	case h.broken == "race" && h.running.Load() > 1:
		r = io.LimitReader(strings.NewReader(strings.Repeat("y", int(size))), size)
	case h.broken == "backpressure":
		r = &impatient{r: r, since: time.Now()}
	}
	m := &message.Message{Summary: message.Summary{ID: id, Have: message.NeedBody}, Body: message.NewBody(r, size, nil)}
	return source.Fetched{ID: id, Message: m}
}

func (h *heaped) Finish(_ context.Context, r source.FinishRequest) iter.Seq2[source.Finished, error] {
	return func(yield func(source.Finished, error) bool) {
		for i, id := range r.IDs {
			var err error
			if int(id.UID) > h.count(id.Mailbox) {
				err = fault.New(fault.Gone, "there is no message %d", id.UID)
			}
			if h.broken == "finish" && i == 0 {
				continue
			}
			if !yield(source.Finished{ID: id, Err: err}, nil) {
				return
			}
		}
	}
}

func (h *heaped) Close() error {
	h.left()
	return nil
}

type text struct{}

func (text) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// hangUp is after how long what is impatient gives up: longer than a body takes
// on a busy machine, and shorter than the pauses of who is patient.
const (
	hangUp  = 900 * time.Millisecond
	patient = 2 * time.Second
)

// impatient is a server that hangs up on a client that doesn't read.
type impatient struct {
	r     io.Reader
	since time.Time
}

func (i *impatient) Read(p []byte) (int, error) {
	if time.Since(i.since) > hangUp {
		return 0, fault.New(fault.Unavailable, "the server hung up")
	}
	return i.r.Read(p)
}

type shelfConfig struct {
	Path     string      `json:"path" required:"true" doc:"directory of the files"`
	Password spec.Secret `json:"password" doc:"of nothing"`
}

// shelf returns a sink that writes a file a message.
func shelf(broken string) sink.Plugin[shelfConfig] {
	return sink.Plugin[shelfConfig]{
		Name: "shelf", Version: "1.0.0", Summary: "a file a message",
		Prepare: func(c shelfConfig) (sink.Prepared, error) {
			if broken == "prepare" {
				return sink.Prepared{Target: c.Path, Needs: message.NeedBody}, os.MkdirAll(c.Path, 0o755)
			}
			return sink.Prepared{Target: c.Path, Lanes: 4, Needs: message.NeedBody, Manifest: true}, nil
		},
		Open: func(ctx context.Context, c shelfConfig, st sink.State) (sink.Sink, error) {
			crashed := fileExists(filepath.Join(c.Path, ".open"))
			if broken == "checkpoint" && crashed {
				if err := os.RemoveAll(c.Path); err != nil { // begins anew, whatever was committed
					return nil, err
				}
				st.Checkpoint, st.Known = nil, false
			}
			if err := misbehave(broken); err != nil {
				return nil, err
			}
			d, err := target.OpenDir(ctx, c.Path, target.Owner{Sink: st.Name, Pipeline: st.Pipeline, Known: st.Known}, st.Checkpoint)
			if err != nil {
				return nil, err
			}
			s := &shelved{Dir: d, path: c.Path, broken: broken, seen: map[message.ID]int{}}
			return s, errors.Join(s.bringBack(), os.WriteFile(filepath.Join(c.Path, ".open"), nil, 0o600))
		},
	}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

type shelved struct {
	*target.Dir
	path   string
	broken string

	mu    sync.Mutex
	seen  map[message.ID]int
	last  string // the name of a file that was flushed
	ready string

	running atomic.Int32 // calls of Write
}

// aside is where the fault "flush" puts a file that was flushed while it
// writes others.
func (s *shelved) aside() string { return filepath.Join(s.path, ".aside") }

func (s *shelved) bringBack() error {
	name, err := os.ReadFile(s.aside() + ".name")
	if err != nil {
		return nil //nolint:nilerr // nothing was put aside
	}
	return errors.Join(os.Rename(s.aside(), filepath.Join(s.path, string(name))), os.Remove(s.aside()+".name"))
}

func (s *shelved) putAside() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != "flush" || s.last == "" {
		return nil
	}
	err := errors.Join(os.WriteFile(s.aside()+".name", []byte(s.last), 0o600), os.Rename(filepath.Join(s.path, s.last), s.aside()))
	s.last = ""
	return err
}

// Seal breaks as the fault "covers" does: the Flush after it covers what came
// later as well.
func (s *shelved) Seal(ctx context.Context) error {
	if s.broken == "covers" {
		return nil
	}
	return target.Seal(ctx, s.Dir)
}

func (s *shelved) Flush(ctx context.Context) (sink.Checkpoint, error) {
	if err := s.bringBack(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.last = s.ready
	s.mu.Unlock()
	return s.Dir.Flush(ctx)
}

func (s *shelved) Close() error {
	return errors.Join(s.bringBack(), os.Remove(filepath.Join(s.path, ".open")), s.Dir.Close())
}

func (s *shelved) Write(ctx context.Context, m *message.Message) (sink.Receipt, error) {
	name := m.ID.Hash() + ".eml"
	switch s.broken {
	case "twice":
		s.mu.Lock()
		if s.seen[m.ID]++; s.seen[m.ID] > 1 {
			name = fmt.Sprintf("again-%d-%s", s.seen[m.ID], name)
		}
		s.mu.Unlock()
	case "names":
		if strings.HasPrefix(m.ID.Mailbox, "..") {
			return sink.Receipt{Path: m.ID.Hash(), Octets: 1}, os.WriteFile(filepath.Join(filepath.Dir(s.path), "escaped-"+m.ID.Hash()), nil, 0o600)
		}
	case "empty":
		if m.Body.Size() == 0 {
			return sink.Receipt{}, fault.New(fault.Bug, "a mail without octets")
		}
	case "receipt":
		_, err := m.Body.WriteTo(io.Discard)
		return sink.Receipt{Path: "somewhere/" + name}, err
	}
	if err := s.putAside(); err != nil {
		return sink.Receipt{}, err
	}
	running := s.running.Add(1)
	defer s.running.Add(-1)
	if s.broken == "race" {
		time.Sleep(5 * time.Millisecond) // so that several run at once
		if running > 1 {
			name = "second-" + name
		}
	}
	f, err := s.Create()
	if err != nil {
		return sink.Receipt{}, err
	}
	var body io.Reader = m.Body
	if s.broken == "memory" {
		b, err := io.ReadAll(m.Body)
		if err != nil {
			f.Discard()
			return sink.Receipt{}, err
		}
		body = bytes.NewReader(b)
	}
	began := time.Now()
	_, err = io.Copy(f, body)
	switch {
	case err != nil && s.broken == "torn" && ctx.Err() == nil:
		return sink.Receipt{Path: name, Octets: f.Size()}, f.Place(m.ID, name, m.InternalDate)
	case err != nil && s.broken == "cancel" && ctx.Err() != nil:
		time.Sleep(3 * time.Second)
	case err == nil && s.broken == "impatient" && f.Size() < 4<<20 && time.Since(began) > hangUp:
		err = fault.New(fault.Unavailable, "the body took too long")
	}
	if err != nil {
		f.Discard()
		return sink.Receipt{}, err
	}
	r := sink.Receipt{Path: name, Octets: f.Size()}
	s.mu.Lock()
	s.ready = name
	s.mu.Unlock()
	return r, f.Place(m.ID, name, m.InternalDate)
}

type stampConfig struct {
	Word string `json:"word" default:"spam" doc:"mails that have it are dropped"`
}

// stamp returns a stage that drops mails, and marks the others.
func stamp(broken string) stage.Plugin[stampConfig] {
	var asked atomic.Int32
	return stage.Plugin[stampConfig]{
		Name: "stamp", Version: "1.0.0", Summary: "drops mails with a word, marks the others",
		Prepare: func(stampConfig) (stage.Spec, error) {
			if broken == "prepare" && asked.Add(1)%2 == 0 {
				return stage.Spec{Needs: message.NeedBody | message.NeedFlags, Changes: true}, nil
			}
			return stage.Spec{Needs: message.NeedBody, Changes: broken != "undeclared"}, nil
		},
		Open: func(_ context.Context, c stampConfig, _ stage.Env) (stage.Stage, error) {
			return &stamped{word: c.Word, broken: broken}, misbehave(broken)
		},
	}
}

type stamped struct {
	word   string
	broken string
	n      int
}

func (s *stamped) Apply(ctx context.Context, m *message.Message) (stage.Verdict, error) {
	s.n++
	head := make([]byte, 4096)
	n, err := io.ReadFull(m.Body, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		if s.broken == "cancel" && ctx.Err() != nil {
			time.Sleep(3 * time.Second)
		}
		return 0, err
	}
	if n == 0 && s.broken == "empty" {
		return 0, fault.New(fault.Bug, "a mail without octets")
	}
	if s.broken == "verdict" && s.n%2 == 0 || bytes.Contains(head[:n], []byte(s.word)) {
		return stage.Drop, nil
	}
	if s.broken == "id" {
		m.ID.UID++
	}
	rest := io.MultiReader(strings.NewReader("X-Stamp: 1\r\n"), bytes.NewReader(head[:n]), m.Body)
	if s.broken == "memory" {
		b, err := io.ReadAll(rest)
		if err != nil {
			return 0, err
		}
		m.Body = message.BodyOf(b)
		return stage.Keep, nil
	}
	m.Body = message.NewBody(rest, -1, nil)
	return stage.Keep, nil
}

func (s *stamped) Close() error { return nil }

type registerConfig struct {
	Path string `json:"path" required:"true" doc:"file of the records"`
}

// register returns a record sink: a line for each message.
func register(broken string) sink.Plugin[registerConfig] {
	return sink.Plugin[registerConfig]{
		Name: "register", Version: "1.0.0", Summary: "a line a message",
		Prepare: func(c registerConfig) (sink.Prepared, error) {
			return sink.Prepared{Target: c.Path, Needs: message.NeedSize, Record: true}, nil
		},
		Open: func(_ context.Context, c registerConfig, st sink.State) (sink.Sink, error) {
			r := &registered{path: c.Path, broken: broken, lines: map[string]string{}}
			if st.Checkpoint == nil {
				return r, nil
			}
			b, err := os.ReadFile(c.Path)
			for line := range strings.Lines(string(b)) {
				key, _, _ := strings.Cut(line, "\t")
				r.lines[key] = line
			}
			return r, err
		},
	}
}

type registered struct {
	path, broken string
	lines        map[string]string
}

func (r *registered) Write(_ context.Context, m *message.Message) (sink.Receipt, error) {
	key := m.ID.Hash()
	if r.broken == "replaces" && m.Record.Replaces {
		r.lines[key] += r.lines[key]
	}
	r.lines[key] += fmt.Sprintf("%s\t%d\t%v\n", key, m.Record.Octets, m.Record.Files)
	if m.Record.Replaces && r.broken != "replaces" {
		r.lines[key] = fmt.Sprintf("%s\t%d\t%v\n", key, m.Record.Octets, m.Record.Files)
	}
	return sink.Receipt{}, nil
}

func (r *registered) Flush(context.Context) (sink.Checkpoint, error) {
	all := ""
	for _, line := range r.lines {
		all += line
	}
	return sink.Checkpoint("written"), os.WriteFile(r.path, []byte(all), 0o600)
}

func (r *registered) Close() error { return nil }

// lax takes whatever stands there, though its schema says that it is a string.
type lax string

func (*lax) ConfigSchema() []byte       { return []byte(`{"type":"string"}`) }
func (*lax) UnmarshalJSON([]byte) error { return nil }

type laxConfig struct {
	Path string `json:"path" required:"true" doc:"directory of the files"`
	Tint lax    `json:"tint" doc:"the colour of the shelf"`
}

// laxShelf is a shelf that doesn't look at all of its config.
func laxShelf() sink.Plugin[laxConfig] {
	p, out := shelf(""), sink.Plugin[laxConfig]{Name: "shelf", Version: "1.0.0", Summary: "a file a message"}
	out.Prepare = func(c laxConfig) (sink.Prepared, error) { return p.Prepare(shelfConfig{Path: c.Path}) }
	out.Open = func(ctx context.Context, c laxConfig, st sink.State) (sink.Sink, error) {
		return p.Open(ctx, shelfConfig{Path: c.Path}, st)
	}
	return out
}
