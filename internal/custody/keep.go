package custody

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

// Settings are what the file says.
type Settings struct {
	Path      string   // of the custody folder, absolute
	Manifest  []string // hashes: sha256, and md5 where it is asked for
	SSHKey    string   // empty: records aren't signed
	Timestamp string   // URL; empty: records aren't timestamped
}

// Input is what a record is made of.
type Input struct {
	Settings Settings
	Store    func() (string, error) // returns the socket of the store of objects; called when a sink is in a bucket
	Plan     *plan.Plan
	Ledger   *ledger.Ledger
	Result   *engine.Result
	Report   *report.Report
	Tool     Program
	Plugins  []Program
	Config   []byte // the pipeline file as JSON, without its secrets
	Sources  []Rules
}

// Rules are what the file selects of a source, in the order of the plan.
type Rules struct {
	Include, Exclude []string
}

// folderName is how a record's folder is called.
func folderName(number int) string { return fmt.Sprintf("%06d", number) }

// Keep writes the record of a run. What it returns besides an error is a
// warning: the record is there, but lacks its timestamp, which the next run
// asks for again. Errors are of class Config or Full.
func Keep(ctx context.Context, in Input) (warning error, err error) {
	s := in.Settings
	if err := target.MakeDirs(s.Path); err != nil {
		return nil, err
	}
	chain, err := readChain(s.Path)
	if err != nil {
		return nil, err
	}
	out, err := collect(ctx, s.Path, in.Plan, in.Ledger, in.Store)
	if err != nil {
		return nil, err
	}
	defer out.close()
	k := &keeper{in: in, chain: chain, out: out, files: map[string][]byte{}}
	if err := k.make(ctx); err != nil {
		return nil, err
	}
	if err := k.place(); err != nil {
		return nil, err
	}
	return k.stampAll(ctx), nil
}

// keeper is a record under way.
type keeper struct {
	in     Input
	chain  *chain
	out    *outputs
	number int
	record *Record
	files  map[string][]byte // of the record's folder
	full   map[string][]byte // manifests of everything, by name
}

func (k *keeper) make(ctx context.Context) error {
	in := k.in
	r := in.Report
	k.number = k.chain.last() + 1
	host, _ := os.Hostname()
	k.record = &Record{
		Version: recordVersion, Number: k.number, Previous: k.chain.previous(), Pipeline: r.Pipeline, ID: in.Ledger.Pipeline(),
		Run: r.Run, Began: r.Began, Ended: r.Ended, Exit: r.Exit, Outcome: r.Outcome, Error: r.Error,
		Operator: Operator{User: userName(), Host: host, OS: runtime.GOOS + "/" + runtime.GOARCH},
		Tool:     in.Tool, Plugins: in.Plugins, Stages: stagesOf(in.Plan), Sinks: k.out.sinks, Total: r.Total,
		Sources: k.sources(), Removed: []string{},
	}
	k.record.Config = k.add(ConfigName, in.Config, 0)
	if err := k.manifests(ctx); err != nil {
		return err
	}
	rows, table, err := exceptions(ctx, in)
	if err != nil {
		return err
	}
	k.record.Exceptions = k.add(ExceptionsName, table, rows)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(k.record); err != nil {
		return fault.Wrap(fault.Bug, err, "write the record")
	}
	k.files[RecordName] = b.Bytes()
	if in.Settings.SSHKey == "" {
		return nil
	}
	key, err := LoadKey(in.Settings.SSHKey)
	if err != nil {
		return err
	}
	if k.files[SignatureName], err = sign(key, b.Bytes()); err != nil {
		return fault.Wrap(fault.Config, err, "sign with %s", in.Settings.SSHKey)
	}
	return addSigner(in.Settings.Path, signerLine(r.Pipeline, key.PublicKey()))
}

func (k *keeper) add(name string, b []byte, lines int64) File {
	k.files[name] = b
	return File{Name: name, SHA256: sumOf(b), Lines: lines}
}

// manifests makes those of what is new, and of everything. A file whose md5 is
// wanted is read; that its sha256 is what its sink wrote is seen on the way.
func (k *keeper) manifests(ctx context.Context) error {
	before := k.chain.files["sha256"]
	added := sums{}
	for path, sum := range k.out.files {
		if before[path] != sum {
			added[path] = sum
		}
	}
	for path := range before {
		if _, ok := k.out.files[path]; !ok {
			k.record.Removed = append(k.record.Removed, path)
		}
	}
	slices.Sort(k.record.Removed)
	k.full = map[string][]byte{}
	for _, name := range k.in.Settings.Manifest {
		fresh, all := added, k.out.files
		if name != "sha256" {
			var err error
			if fresh, all, err = k.second(ctx, name, added); err != nil {
				return err
			}
		}
		freshFiles, freshObjects := fresh.split()
		files, objects := all.split()
		k.manifest(name, freshFiles, files)
		_, before := before.split()
		if len(objects)+len(before) > 0 {
			k.manifest(objectsName+name, freshObjects, objects)
		}
	}
	return nil
}

// manifest adds what is new and what is there, by a hash, to the record.
func (k *keeper) manifest(name string, fresh, all sums) {
	k.record.Added = append(k.record.Added, k.add(addedName+name, fresh.format(), int64(len(fresh))))
	full := all.format()
	k.full[manifestName+name] = full
	k.record.Manifests = append(k.record.Manifests, File{Name: manifestName + name, SHA256: sumOf(full), Lines: int64(len(all))})
}

// second reads the files that have no hash of that name yet.
func (k *keeper) second(ctx context.Context, name string, added sums) (fresh, all sums, err error) {
	fresh, all = sums{}, sums{}
	before := k.chain.files[name]
	for path, sum := range k.out.files {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if _, isNew := added[path]; !isNew && before[path] != "" {
			all[path] = before[path]
			continue
		}
		h, check := newHash(name), newHash("sha256")
		at := path
		if !inBucket(path) {
			at = filepath.Join(k.in.Settings.Path, filepath.FromSlash(path))
		}
		if _, err := k.out.hash(ctx, path, k.out.buf, h, check); err != nil {
			if lasting(err) {
				return nil, nil, err
			}
			return nil, nil, target.DiskError(err, "read %s for its %s", at, name)
		}
		if hexOf(check) != sum {
			return nil, nil, fault.New(fault.Config, "%s isn't what was written: its sha256 is another", at).
				WithHint("pipeline verify says what else is wrong")
		}
		fresh[path], all[path] = hexOf(h), hexOf(h)
	}
	return fresh, all, nil
}

// place puts the record's folder in place, whole or not at all, and then the
// manifests of everything.
func (k *keeper) place() error {
	s := k.in.Settings
	final := filepath.Join(s.Path, folderName(k.number))
	unfinished := filepath.Join(s.Path, "."+folderName(k.number)+".new")
	if err := os.RemoveAll(unfinished); err != nil {
		return target.DiskError(err, "clean up %s", unfinished)
	}
	if err := target.MakeDirs(unfinished); err != nil {
		return err
	}
	for name, b := range k.files {
		if err := target.WriteFile(filepath.Join(unfinished, name), b); err != nil {
			return err
		}
	}
	err := os.Rename(unfinished, final)
	if err == nil {
		err = target.SyncDir(s.Path)
	}
	if err != nil {
		return target.DiskError(err, "put the record %s in place", final)
	}
	for name, b := range k.full {
		if err := target.WriteFile(filepath.Join(s.Path, name), b); err != nil {
			return err
		}
	}
	return nil
}

// stampAll asks for the timestamps that records lack: this one's, and those of
// earlier ones whose authority didn't answer.
func (k *keeper) stampAll(ctx context.Context) error {
	s := k.in.Settings
	if s.Timestamp == "" {
		return nil
	}
	for n := k.number; n > 0; n-- {
		dir := filepath.Join(s.Path, folderName(n))
		if _, err := os.Stat(filepath.Join(dir, TimestampName)); err == nil {
			continue
		}
		record, err := os.ReadFile(filepath.Join(dir, RecordName))
		if err != nil {
			return fmt.Errorf("read the record %s for its timestamp: %w", dir, err)
		}
		answer, err := askStamp(ctx, s.Timestamp, record)
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "timestamp record %d", n).(*fault.Error).
				WithHint("the record is there without it; the next run asks again")
		}
		if err := target.WriteFile(filepath.Join(dir, TimestampName), answer); err != nil {
			return err
		}
	}
	return nil
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint("uid ", os.Getuid())
}

func stagesOf(p *plan.Plan) []Stage {
	out := []Stage{}
	if p.Chain == nil {
		return out
	}
	for _, s := range p.Chain.Stages() {
		st := Stage{Name: s.Name, Kind: string(s.Kind)}
		if s.Filter != nil {
			st.Text = s.Filter.Program.Text()
		}
		out = append(out, st)
	}
	return out
}

func (k *keeper) sources() []Source {
	out := []Source{}
	results := map[string]*engine.Account{}
	for i := range k.in.Result.Accounts {
		results[k.in.Result.Accounts[i].Source] = &k.in.Result.Accounts[i]
	}
	reports := map[string]*report.Account{}
	for i := range k.in.Report.Accounts {
		reports[k.in.Report.Accounts[i].Source] = &k.in.Report.Accounts[i]
	}
	for i := range k.in.Plan.Sources {
		p := &k.in.Plan.Sources[i]
		s := Source{Name: p.Name, Plugin: p.Plugin, State: ledger.NeverListed.String(), Newest: p.Newest, Limit: p.Limit, Include: []string{}, Mailboxes: []report.Mailbox{}}
		if i < len(k.in.Sources) {
			s.Include, s.Exclude = k.in.Sources[i].Include, k.in.Sources[i].Exclude
		}
		if a := results[p.Name]; a != nil {
			s.URL, s.Server = a.URL, a.Facts
		}
		if a := reports[p.Name]; a != nil {
			s.State, s.Error, s.Mailboxes = a.State, a.Error, a.Mailboxes
		}
		out = append(out, s)
	}
	return out
}

// addSigner adds a line to the allowed signers, unless it is there.
func addSigner(folder, line string) error {
	path := filepath.Join(folder, SignersName)
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return target.DiskError(err, "read %s", path)
	}
	if bytes.Contains(b, []byte(line)) {
		return nil
	}
	return target.WriteFile(path, append(b, line...))
}
