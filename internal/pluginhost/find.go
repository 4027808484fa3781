package pluginhost

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Kind is what sort of plugin it is.
type Kind = wire.Kind

// The kinds.
const (
	Source = wire.KindSource
	Sink   = wire.KindSink
	Stage  = wire.KindStage
)

// place is a folder where plugins are looked for, and why.
type place struct{ dir, why string }

// Found is a plugin's executable.
type Found struct {
	Kind Kind
	Name string
	Path string
	Why  string // which place it is, as in "on PATH"
}

// Identity tells one build of a plugin from another: what its Describe said
// may be kept as long as it is the same. A plugin that was attached to has
// none but its name: it may differ each time.
type Identity struct {
	Path     string
	Size     int64
	Modified time.Time
}

func places(o Options) []place {
	var out []place
	add := func(list, why string) {
		for _, dir := range filepath.SplitList(list) {
			// An empty entry means the working directory to a shell. Not
			// here: a mailbox's folder is no place for programs.
			if dir != "" {
				out = append(out, place{dir, why})
			}
		}
	}
	add(o.Beside, "beside the pipeline command")
	for _, dir := range o.Dirs {
		out = append(out, place{dir, "--plugin-dir"})
	}
	add(o.PluginPath, "PIPELINE_PLUGIN_PATH")
	add(o.Path, "PATH")
	return out
}

// file returns the name of the executable, without its folder.
func (f Found) file() string { return "pipeline-" + f.Kind.String() + "-" + f.Name }

// executable returns the name of the file that is a plugin's program.
func executable(kind Kind, name string) string {
	file := "pipeline-" + kind.String() + "-" + name
	if runtime.GOOS == "windows" {
		file += ".exe"
	}
	return file
}

// Find returns the first executable of a plugin in the places, or a
// fault.Config that says where it looked and what is there instead.
func (h *Host) Find(kind Kind, name string) (Found, error) {
	if name == "" || strings.ContainsAny(name, `/\`) {
		return Found{}, fault.New(fault.Config, "%q isn't a plugin's name", name).
			WithHint("a plugin is named by what follows pipeline-%s- in its executable's name", kind)
	}
	if _, ok := h.attached[Found{Kind: kind, Name: name}.file()]; ok {
		return Found{Kind: kind, Name: name, Path: executable(kind, name), Why: "in " + wire.EnvReattach}, nil
	}
	found, unusable, ok := h.look(kind, name)
	if ok {
		return found, guarded(found)
	}
	file := executable(kind, name)
	var looked []string
	for _, p := range h.places {
		looked = append(looked, fmt.Sprintf("%s (%s)", p.dir, p.why))
	}
	err := fault.New(fault.Config, "there is no %s plugin %q: no %s in %s", kind, name, file, strings.Join(unique(looked), ", "))
	if len(looked) == 0 {
		err = fault.New(fault.Config, "there is no %s plugin %q, and no folder to look for it", kind, name)
	}
	if len(unusable) > 0 {
		err.Text += "; " + strings.Join(unusable, "; ")
	}
	if near := h.nearest(kind, name); near != "" {
		return Found{}, err.WithHint("did you mean %q?", near)
	}
	return Found{}, err.WithHint("install %s, or name its folder with --plugin-dir", file)
}

// look returns the first executable, and what stood in its way.
func (h *Host) look(kind Kind, name string) (found Found, unusable []string, ok bool) {
	for _, p := range h.places {
		path, err := filepath.Abs(filepath.Join(p.dir, executable(kind, name)))
		if err != nil {
			unusable = append(unusable, err.Error())
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil && !os.IsNotExist(err):
			unusable = append(unusable, err.Error())
		case err != nil:
		case info.IsDir() || runtime.GOOS != "windows" && info.Mode()&0o111 == 0:
			unusable = append(unusable, path+" isn't executable")
		default:
			return Found{Kind: kind, Name: name, Path: path, Why: p.why}, nil, true
		}
	}
	return Found{}, unusable, false
}

func unique(in []string) []string {
	seen := map[string]bool{}
	out := in[:0]
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// All returns the plugins in all places, the first of each kind and name, in
// order of kind and name.
func (h *Host) All() []Found {
	seen := map[string]bool{}
	var out []Found
	for _, p := range h.places {
		entries, err := os.ReadDir(p.dir)
		if err != nil {
			continue // a folder on PATH that isn't there is nothing new
		}
		for _, e := range entries {
			kind, name, ok := Parse(e.Name())
			if !ok || seen[e.Name()] {
				continue
			}
			found, _, ok := h.look(kind, name)
			if !ok {
				continue
			}
			seen[e.Name()] = true
			out = append(out, found)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Kind != out[j].Kind {
			return out[i].Kind < out[j].Kind
		}
		return out[i].Name < out[j].Name
	})
	return out
}

// Parse returns the kind and name of the plugin whose executable has this name,
// if it is one.
func Parse(file string) (Kind, string, bool) {
	file = strings.TrimSuffix(file, ".exe")
	for _, kind := range []Kind{Source, Sink, Stage} {
		if name, ok := strings.CutPrefix(file, "pipeline-"+kind.String()+"-"); ok && name != "" {
			return kind, name, true
		}
	}
	return 0, "", false
}

// nearest returns the installed plugin whose name is most like name.
func (h *Host) nearest(kind Kind, name string) string {
	var names []string
	for _, f := range h.All() {
		if f.Kind == kind {
			names = append(names, f.Name)
		}
	}
	return spec.Nearest(name, names)
}

// Identity returns what tells this build of the plugin from another.
func (h *Host) Identity(kind Kind, name string) (Identity, error) {
	found, err := h.Find(kind, name)
	if err != nil {
		return Identity{}, err
	}
	if _, ok := h.attached[found.file()]; ok {
		return Identity{Path: found.Path}, nil
	}
	info, err := os.Stat(found.Path)
	if err != nil {
		return Identity{}, fault.Wrap(fault.Config, err, "look at plugin %s", name)
	}
	return Identity{Path: found.Path, Size: info.Size(), Modified: info.ModTime()}, nil
}
