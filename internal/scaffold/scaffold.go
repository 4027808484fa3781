// Package scaffold writes the module of a new plugin: one that builds, passes
// its test, and does something that can be seen.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"github.com/mailhaul/pipeline/pkg/fault"
)

//go:embed template
var templates embed.FS

// Module is the path of the module that plugins import.
const Module = "github.com/mailhaul/pipeline"

// Plugin says what is to be written.
type Plugin struct {
	Kind    string // source, sink or stage
	Name    string
	Path    string // module path; empty: example.com/pipeline-KIND-NAME
	Version string // of Module
	Replace string // folder that stands in for Module, until it is published; empty: none
}

// Executable returns the name of the plugin's executable and folder.
func (p Plugin) Executable() string { return "pipeline-" + p.Kind + "-" + p.Name }

var name = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// Write makes folder with the plugin's files in it, and returns their names.
// It is an error when the folder has anything in it.
func Write(folder string, p Plugin) ([]string, error) {
	switch p.Kind {
	case "source", "sink", "stage":
	default:
		return nil, fault.New(fault.Config, "there is no kind of plugin %q", p.Kind).WithHint("use source, sink or stage")
	}
	if !name.MatchString(p.Name) {
		return nil, fault.New(fault.Config, "%q can't be a plugin's name", p.Name).
			WithHint("use lower-case letters, digits and hyphens, as in jmap or s3-archive")
	}
	if p.Path == "" {
		p.Path = "example.com/" + p.Executable()
	}
	if entries, err := os.ReadDir(folder); err == nil && len(entries) > 0 {
		return nil, fault.New(fault.Config, "%s isn't empty", folder).WithHint("name another folder with --dir")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Config, "look at %s: %w", folder, err)
	}
	t, err := template.ParseFS(templates, "template/*.tmpl")
	if err != nil {
		return nil, fault.New(fault.Bug, "read the templates: %w", err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fault.New(fault.Config, "make %s: %w", folder, err)
	}
	files := []struct{ name, template string }{
		{"go.mod", "go.mod.tmpl"}, {"main.go", p.Kind + ".go.tmpl"}, {"main_test.go", p.Kind + "_test.go.tmpl"},
		{"Makefile", "Makefile.tmpl"}, {"README.md", "README.md.tmpl"}, {".gitignore", "gitignore.tmpl"},
	}
	var out []string
	for _, f := range files {
		var text strings.Builder
		if err := t.ExecuteTemplate(&text, f.template, p); err != nil {
			return nil, fault.New(fault.Bug, "write %s: %w", f.name, err)
		}
		path := filepath.Join(folder, f.name)
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil { //nolint:gosec // source code
			return nil, fault.New(fault.Config, "write %s: %w", path, err)
		}
		out = append(out, f.name)
	}
	return out, nil
}

// Checkout returns the folder of Module's source code that holds one of the
// paths, or nothing: what a plugin is built with until Module is published.
func Checkout(paths ...string) string {
	for _, path := range paths {
		dir, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		for ; ; dir = filepath.Dir(dir) {
			b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err == nil && strings.HasPrefix(string(b), fmt.Sprintf("module %s\n", Module)) {
				return dir
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return ""
}
