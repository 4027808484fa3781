package crash

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// left is what runs leave: by name, what must be equal.
type left map[string]string

// left reads what is there: the messages' files with their octets and times,
// the lines of index and manifests, and what the ledger knows of each message.
func (p *pipeline) left() left {
	p.t.Helper()
	out := left{}
	root := p.path("out")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch base := filepath.Base(name); {
		case base == "target.json" || base == "lock" || base == "swap.json" || strings.HasPrefix(base, "pending-"):
			return nil // the sinks' own; which generation it is may differ
		case base == "index.jsonl" || base == "manifest.jsonl":
			return out.lines(name, path)
		}
		octets, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out[name] = fmt.Sprintf("%x", sha256.Sum256(octets))
		if p.undated == "" || !strings.Contains(name, p.undated) {
			out[name] += info.ModTime().UTC().Format(" " + time.RFC3339)
		}
		return nil
	})
	if err == nil {
		err = p.ledger(out)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (l left) lines(name, path string) error {
	octets, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := strings.Split(string(octets), "\n")
	slices.Sort(lines)
	l[name] = strings.Join(lines, "\n")
	return nil
}

// ledger adds what the ledger knows.
func (p *pipeline) ledger(out left) error {
	ctx := context.Background()
	l, err := p.openLedger()
	if err != nil {
		return err
	}
	defer l.Close()
	targets := map[ledger.TargetID]string{ledger.Everywhere: "all"}
	for sink, path := range p.sinks {
		t, err := l.Target(ctx, sink, p.path(path))
		if err != nil {
			return err
		}
		targets[t.ID] = sink
		out["target "+sink] = fmt.Sprintf("dirty: %t, known: %t", t.Dirty, t.Known)
	}
	err = l.Letters(ctx, func(id message.ID, sink string, letter ledger.Letter) error {
		out["letter "+id.String()+" "+sink] = fmt.Sprintf("%+v", letter)
		return nil
	})
	if err != nil {
		return err
	}
	for _, mailbox := range p.ids(p) {
		box, err := l.Box(ctx, mailbox.source, mailbox.mailbox, mailbox.validity)
		if err != nil {
			return err
		}
		ids := mailbox.ids
		entries, err := l.Lookup(ctx, box, ids)
		if err != nil {
			return err
		}
		for i, e := range entries {
			text := []string{fmt.Sprintf("%d octets, sha256 %x, suspects %v", e.Octets, e.SHA256, e.Suspects)}
			for _, f := range e.Fates {
				fate := fmt.Sprintf("%s: %s %q", targets[f.Target], f.Class, f.Receipt)
				if f.Refusal != nil {
					fate += fmt.Sprintf(" by %s for %s", f.Refusal.Stage, f.Refusal.Values)
				}
				text = append(text, fate)
			}
			slices.Sort(text)
			out["ledger "+ids[i].String()] = strings.Join(text, "\n")
		}
	}
	return nil
}

// openLedger opens a copy of the ledger: SQLite maps a file, and this process
// may be serving the file system that it is on.
func (p *pipeline) openLedger() (*ledger.Ledger, error) {
	dir := p.t.TempDir()
	for _, end := range []string{".db", ".db-wal"} {
		b, err := os.ReadFile(p.path(filepath.Join(p.state, "crash"+end)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "crash"+end), b, 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	return ledger.Open(context.Background(), dir, "crash")
}

// names are the source's mailboxes.
var names = [mailboxes]string{"INBOX", "Work/Project 1", "Archiv/Jahr 2 – Ärger", "Work/Project 3"}

// wantSame compares with what the undisturbed run left (I2).
func (p *pipeline) wantSame(want left) {
	p.t.Helper()
	got := p.left()
	for name := range want {
		if _, ok := got[name]; !ok {
			p.t.Errorf("I2: %s is missing (in %s)", name, p.dir)
		}
	}
	for name, text := range got {
		switch other, ok := want[name]; {
		case !ok:
			p.t.Errorf("I2: an undisturbed run leaves no %s (in %s): %.200s", name, p.dir, text)
		case text != other:
			lost, gained := apart(other, text)
			p.t.Errorf("I2: %s isn't as an undisturbed run leaves it (in %s):\nwithout these %d lines:\n%.600s\nwith these %d lines:\n%.600s",
				name, p.dir, len(lost), strings.Join(lost, "\n"), len(gained), strings.Join(gained, "\n"))
		}
	}
}

// apart returns the lines that only one of two texts has, a line that stands
// twice counting twice.
func apart(a, b string) (onlyA, onlyB []string) {
	count := map[string]int{}
	for line := range strings.SplitSeq(b, "\n") {
		count[line]++
	}
	for line := range strings.SplitSeq(a, "\n") {
		if count[line]--; count[line] < 0 {
			onlyA = append(onlyA, line)
		}
	}
	for line, n := range count {
		for range n {
			onlyB = append(onlyB, line)
		}
	}
	return onlyA, onlyB
}

// times are the times of change of all that the sinks have.
func (p *pipeline) times() map[string]time.Time {
	p.t.Helper()
	out := map[string]time.Time{}
	err := filepath.WalkDir(p.path("out"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out[path] = info.ModTime()
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}
