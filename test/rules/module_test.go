// Package rules tests what the compiler doesn't: who may import whom, what a
// plugin author's packages show, how packages are named, where state lives.
// docs/architecture.md gives the reasons.
package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/mailhaul/pipeline"

// pkg is a package of the module as `go list -json` tells it. Paths are
// relative to the module, as in "pkg/message".
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	Standard     bool
	Module       *struct{ Path string }
	Imports      []string
	Deps         []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func (p *pkg) path() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

var root = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	return strings.TrimSpace(string(out)), err
})

var list = sync.OnceValues(func() ([]*pkg, error) {
	dir, err := root()
	if err != nil {
		return nil, err
	}
	// -e: a package that doesn't compile is the compiler's business.
	cmd := exec.Command("go", "list", "-e", "-deps",
		"-json=ImportPath,Name,Dir,Standard,Module,Imports,Deps,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var pkgs []*pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		if !p.Standard && p.Module != nil && p.Module.Path == module && p.Name != "" {
			pkgs = append(pkgs, p)
		}
	}
})

// packages returns the module's packages.
func packages(t *testing.T) []*pkg {
	t.Helper()
	pkgs, err := list()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if len(pkgs) == 0 {
		t.Fatal("go list found no package of " + module)
	}
	return pkgs
}

// file is a parsed source file.
type file struct {
	path      string // relative to the module
	syntax    *ast.File
	set       *token.FileSet
	generated bool
	test      bool
}

func (f *file) at(pos token.Pos) string {
	p := f.set.Position(pos)
	return f.path + ":" + strings.TrimPrefix(p.String(), p.Filename+":")
}

// parse reads the files of p, tests included.
func parse(t *testing.T, p *pkg) []*file {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	var files []*file
	for i, names := range [][]string{p.GoFiles, p.TestGoFiles, p.XTestGoFiles} {
		for _, name := range names {
			full := filepath.Join(p.Dir, name)
			rel, err := filepath.Rel(dir, full)
			if err != nil {
				t.Fatal(err)
			}
			f := parseFile(t, full, filepath.ToSlash(rel))
			if f != nil {
				f.test = i > 0
				files = append(files, f)
			}
		}
	}
	return files
}

// parseFile returns nil for a file that doesn't parse: the compiler says more
// of it than a rule could.
func parseFile(t *testing.T, full, rel string) *file {
	t.Helper()
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, full, nil, parser.ParseComments)
	if err != nil {
		t.Logf("%s is left out: %v", rel, err)
		return nil
	}
	return &file{path: rel, syntax: syntax, set: set, generated: ast.IsGenerated(syntax)}
}
