package rules

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// maxLines is hard; most files stay below 400.
const maxLines = 600

func TestFilesStayShort(t *testing.T) {
	t.Parallel()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages(t) {
		for _, f := range parse(t, p) {
			octets, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.path)))
			if err != nil {
				t.Error(err)
				continue
			}
			if n := bytes.Count(octets, []byte("\n")); n > maxLines && !f.generated {
				t.Errorf("%s has %d lines, more than %d: it holds more than one idea", f.path, n, maxLines)
			}
		}
	}
}

func TestPackagesAreNounsOfTheField(t *testing.T) {
	t.Parallel()
	empty := []string{"util", "utils", "common", "helper", "helpers", "misc", "manager", "shared", "base", "lib", "types"}
	for _, p := range packages(t) {
		for _, level := range append(strings.Split(p.path(), "/"), strings.TrimSuffix(p.Name, "_test")) {
			if slices.Contains(empty, level) {
				t.Errorf("%s: %q says nothing of what is in it", p.path(), level)
			}
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, f := range parse(t, p) {
			if f.generated {
				continue
			}
			for _, decl := range f.syntax.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s: an init function; call it from where it is needed", f.at(fn.Pos()))
				}
			}
		}
	}
}

// A package's variable is a table or an error value: set where it is declared,
// by nobody else. It isn't a lock, a counter or a cache either; a sync.Pool
// may be, as it only lends memory.
func TestNoMutablePackageVariables(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, finding := range globalState(parse(t, p)) {
			t.Error(finding)
		}
	}
}

func TestGlobalStateIsSeen(t *testing.T) {
	t.Parallel()
	set := token.NewFileSet()
	var files []*file
	for _, source := range []string{`package p
import "sync"
var table = map[string]int{"a": 1}
var last string
var mu sync.Mutex
var pool = sync.Pool{}
var _ = table
func f(table []int) { table[0] = 1; _ = table }
`, `package p
func g() { table["b"] = 2; last := "x"; last = "y"; _ = last }
func h() { last = "z" }
`} {
		syntax, err := parser.ParseFile(set, "p.go", source, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, &file{path: "p.go", syntax: syntax, set: set})
	}
	want := []string{
		"p.go:5:5: a package variable of type sync.Mutex is global state",
		"p.go:2:12: table is a package variable, and is changed here: global state",
		"p.go:3:12: last is a package variable, and is changed here: global state",
	}
	if got := globalState(files); !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// globalState says what of a package's files breaks the rule, a line each.
func globalState(files []*file) []string {
	var out []string
	vars := map[string]bool{}
	files = slices.DeleteFunc(files, func(f *file) bool { return f.generated || f.test })
	for _, f := range files {
		for _, spec := range packageVars(f) {
			for _, name := range spec.Names {
				vars[name.Name] = name.Name != "_"
			}
			types := []ast.Expr{spec.Type}
			for _, value := range spec.Values {
				if lit, ok := value.(*ast.CompositeLit); ok {
					types = append(types, lit.Type)
				}
			}
			for _, typ := range types {
				if kind := stateful(typ); kind != "" {
					out = append(out, f.at(spec.Pos())+": a package variable of type "+kind+" is global state")
				}
			}
		}
	}
	for _, f := range files {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			for _, target := range assigned(n) {
				if id := base(target); id != nil && vars[id.Name] && isPackageLevel(f, id) {
					out = append(out, f.at(id.Pos())+": "+id.Name+" is a package variable, and is changed here: global state")
				}
			}
			return true
		})
	}
	return out
}

func assigned(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	}
	return nil
}

func packageVars(f *file) []*ast.ValueSpec {
	var out []*ast.ValueSpec
	for _, decl := range f.syntax.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			if value, ok := spec.(*ast.ValueSpec); ok {
				out = append(out, value)
			}
		}
	}
	return out
}

// stateful returns the type's name when all its use is to change.
func stateful(typ ast.Expr) string {
	sel, ok := typ.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	pkg, ok := sel.X.(*ast.Ident)
	if !ok || pkg.Name != "sync" && pkg.Name != "atomic" || sel.Sel.Name == "Pool" {
		return ""
	}
	return pkg.Name + "." + sel.Sel.Name
}

// base returns the variable that an assignment to e changes: x of x[i].f.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default: // *p changes what p points to, which is seldom the package's
			return nil
		}
	}
}

// isPackageLevel reports whether id is no local variable of that name. The
// parser resolves what is declared in the file; the rest is another file's.
func isPackageLevel(f *file, id *ast.Ident) bool {
	if id.Obj == nil {
		return true
	}
	spec, ok := id.Obj.Decl.(*ast.ValueSpec)
	return ok && slices.Contains(packageVars(f), spec)
}

// What an author imports shows no type of the wire or of its libraries: they
// may be exchanged without a plugin being rewritten.
func TestPublicSignaturesShowNoWireTypes(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.path(), "pkg/") {
			continue
		}
		for _, f := range parse(t, p) {
			if f.test {
				continue
			}
			for _, node := range exported(f.syntax) {
				ast.Inspect(node, func(n ast.Node) bool {
					sel, ok := n.(*ast.SelectorExpr)
					if !ok {
						return true
					}
					if id, ok := sel.X.(*ast.Ident); ok {
						if imp := imported(f.syntax, id.Name); isWire(imp) {
							t.Errorf("%s: an exported declaration shows %s.%s of %s", f.at(sel.Pos()), id.Name, sel.Sel.Name, imp)
						}
					}
					return true
				})
			}
		}
	}
}

func isWire(imp string) bool {
	for _, prefix := range []string{module + "/internal/", "google.golang.org/", "github.com/hashicorp/"} {
		if strings.HasPrefix(imp, prefix) {
			return true
		}
	}
	return false
}

// exported returns what of a file a package's user sees: the signatures of
// exported functions and of methods on exported types, exported types without
// their unexported fields, exported variables with a written type.
func exported(f *ast.File) []ast.Node {
	var out []ast.Node
	for _, decl := range f.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Name.IsExported() && (decl.Recv == nil || receiver(decl.Recv).IsExported()) {
				out = append(out, decl.Type)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					if spec.Type != nil && slices.ContainsFunc(spec.Names, (*ast.Ident).IsExported) {
						out = append(out, spec.Type)
					}
				case *ast.TypeSpec:
					if spec.Name.IsExported() {
						out = append(out, visible(spec.Type)...)
					}
				}
			}
		}
	}
	return out
}

func visible(typ ast.Expr) []ast.Node {
	s, ok := typ.(*ast.StructType)
	if !ok {
		return []ast.Node{typ}
	}
	var out []ast.Node
	for _, field := range s.Fields.List {
		if len(field.Names) == 0 || slices.ContainsFunc(field.Names, (*ast.Ident).IsExported) {
			out = append(out, field.Type)
		}
	}
	return out
}

func receiver(list *ast.FieldList) *ast.Ident {
	typ := list.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.Ident:
			return x
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		default:
			return ast.NewIdent("_")
		}
	}
}

// imported returns the path of the import that name stands for; empty for none.
func imported(f *ast.File, name string) string {
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		if spec.Name != nil && spec.Name.Name == name {
			return path
		}
		last := path[strings.LastIndex(path, "/")+1:]
		if spec.Name == nil && (last == name || strings.TrimPrefix(last, "go-") == name) {
			return path
		}
	}
	return ""
}

// A test that needs a server fails without it. Only what reads the mail
// corpus, or another thing that MAILHAUL_… names, may be left out, and says so.
func TestNoHiddenSkips(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, f := range parse(t, p) {
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				// A fuzz body has no need of Skip either: it returns.
				if slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) && onTestingVar(sel) && !namesEnvironment(call) {
					t.Errorf("%s: a skip that doesn't name a MAILHAUL_ variable", f.at(call.Pos()))
				}
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == "testing" && sel.Sel.Name == "Short" {
					t.Errorf("%s: testing.Short hides tests", f.at(call.Pos()))
				}
				return true
			})
		}
	}
}

func onTestingVar(sel *ast.SelectorExpr) bool {
	id, ok := sel.X.(*ast.Ident)
	return ok && slices.Contains([]string{"t", "b", "tb"}, id.Name)
}

func namesEnvironment(call *ast.CallExpr) bool {
	return slices.ContainsFunc(call.Args, func(arg ast.Expr) bool {
		found := false
		ast.Inspect(arg, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && strings.Contains(lit.Value, "MAILHAUL_") {
				found = true
			}
			return !found
		})
		return found
	})
}
