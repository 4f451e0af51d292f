package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pandoproxy/pando"

// file is one source file of the project.
type file struct {
	path string // from the root, with slashes
	pkg  string // import path below the module: "internal/flow"
	test bool
	ast  *ast.File
}

var fset = token.NewFileSet()

// source parses the whole project once.
func source(t *testing.T) []file {
	t.Helper()
	var files []file
	root := "../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "tools" || d.Name() != ".." && strings.HasPrefix(d.Name(), ".")) && path != root {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		a, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		rel = filepath.ToSlash(rel)
		dir := rel[:max(strings.LastIndexByte(rel, '/'), 0)]
		files = append(files, file{rel, dir, strings.HasSuffix(path, "_test.go"), a})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found only %d files: the tests look in the wrong place", len(files))
	}
	return files
}

// Rule 1: every package has one doc comment.
func TestPackageDocs(t *testing.T) {
	docs := map[string][]string{}
	for _, f := range source(t) {
		if f.test {
			continue
		}
		docs[f.pkg] = append(docs[f.pkg], "")
		if f.ast.Doc != nil {
			docs[f.pkg][0] += f.path + " "
			if text := f.ast.Doc.Text(); !strings.HasPrefix(text, "Package "+f.ast.Name.Name+" ") && !strings.HasPrefix(text, "Command ") {
				t.Errorf("%s: the package comment should start with \"Package %s \"", f.path, f.ast.Name.Name)
			}
		}
	}
	for pkg, d := range docs {
		// Files for one system each may repeat it, if only one of them is built.
		if n := len(strings.Fields(d[0])); n != 1 && !strings.Contains(d[0], "_linux.go") {
			t.Errorf("%s has %d package comments (%s), want one", pkg, n, d[0])
		}
	}
}

// Rule 2: imports point one way.
func TestForbiddenImports(t *testing.T) {
	files := source(t)
	stages := map[string]bool{} // the folders below internal/datapath
	for _, f := range files {
		if below, ok := strings.CutPrefix(f.pkg, "internal/datapath/"); ok {
			stage, _, _ := strings.Cut(below, "/")
			stages[stage] = true
		}
	}
	if len(stages) < 10 {
		t.Errorf("found only %d stages: the test looks in the wrong place", len(stages))
	}
	for _, f := range files {
		if f.test {
			continue
		}
		for _, imp := range f.ast.Imports {
			path, _ := strconv.Unquote(imp.Path.Value)
			own, inside := strings.CutPrefix(path, module+"/")
			std := !strings.Contains(strings.Split(path, "/")[0], ".")
			deny := func(bad bool, why string) {
				if bad {
					t.Errorf("%s imports %s: %s", f.path, path, why)
				}
			}
			below, _ := strings.CutPrefix(f.pkg, "internal/datapath/")
			stage, _, _ := strings.Cut(below, "/") // a stage may have packages below it
			deny(stages[stage] && inside && !slices.Contains([]string{"internal/flow", "internal/host", "internal/socket"}, own) && !strings.HasPrefix(own, "internal/datapath/"+stage+"/"),
				"stages of the data path share flow (words), host (addresses and names) and socket (raw sockets) and do not know one another")
			deny(f.pkg == "internal/socket" && inside, "socket does not know protocols or our other packages")
			deny(f.pkg == "internal/host" && inside && own != "internal/flow", "host imports flow alone")
			deny(f.pkg == "internal/flow" && !std, "flow imports the standard library alone")
			deny(strings.HasPrefix(path, "tailscale.com/") && !slices.Contains([]string{"internal/tailnet", "internal/testnet", "internal/fleet", "internal/fleet/kubetest"}, f.pkg) && !strings.HasPrefix(f.pkg, "internal/tailnet/"),
				"only tailnet (testnet for its control server, fleet for its Kubernetes client) imports tailscale.com")
			deny(strings.HasPrefix(path, "gvisor.dev/") && f.pkg != "internal/tailnet/userspace", "only the package of the userspace stack uses it")
			deny(own == "internal/tailnet" && !slices.Contains([]string{"internal/device", "internal/testnet", "internal/nstest"}, f.pkg),
				"the device runs the engine; no other package needs it")
			deny(own == "internal/podproxy" && !slices.Contains([]string{"internal/device", "internal/gateway", "internal/oauth", "internal/tailnet"}, f.pkg),
				"flows of clients never use the proxy of the replica's own environment")
			deny(own == "internal/gateway" && !slices.Contains([]string{"internal/cli", "internal/demo"}, f.pkg), "the gateway is built by cli and demo")
			deny((own == "internal/testnet" || own == "internal/nstest" || own == "internal/testkit" || own == "internal/fleet/kubetest") && f.pkg != "internal/demo", "the test tailnet is for tests and the demo")
			deny(strings.HasPrefix(f.pkg+"/", "internal/config/") && inside && own != "internal/auth" && own != "internal/host" && !strings.HasPrefix(own, "internal/config/"), "config imports auth, host and its own packages alone")
			deny(path == "testing" && f.pkg != "internal/nstest" && f.pkg != "internal/testkit" && f.pkg != "internal/fleet/kubetest", "testing is for tests")
			deny(path == "net/http/httputil" && f.pkg != "internal/datapath/httpproxy/wire", "proxying is httpproxy's")
			deny(path == "html/template" || path == "text/template", "a template has the linker keep every method: 7 MiB")
			deny(path == "log", "log with log/slog, passed in") // testnet silences servers with it
		}
	}
}

// Rule 3: every class of error has a reply of its own in every front.
func TestEveryClassHasReplies(t *testing.T) {
	files := source(t)
	classes := map[string]bool{}
	for _, f := range files {
		if f.path != "internal/flow/error.go" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if kv, ok := n.(*ast.KeyValueExpr); ok { // the table of names
				if id, ok := kv.Key.(*ast.Ident); ok && ast.IsExported(id.Name) {
					classes[id.Name] = true
				}
			}
			return true
		})
	}
	if len(classes) < 10 {
		t.Fatalf("found only the classes %v", classes)
	}
	for path, fn := range map[string]string{"internal/datapath/httpproxy/reply/reply.go": "StatusFor", "internal/datapath/socks/message5.go": "replyFor", "internal/datapath/socks/version4.go": "replyFor4", "internal/datapath/sni/sni.go": "alertFor"} {
		have := map[string]bool{}
		for _, f := range files {
			if f.path != path {
				continue
			}
			for _, d := range f.ast.Decls {
				if fd, ok := d.(*ast.FuncDecl); ok && fd.Name.Name == fn {
					ast.Inspect(fd, func(n ast.Node) bool {
						if cc, ok := n.(*ast.CaseClause); ok {
							for _, e := range cc.List {
								if s, ok := e.(*ast.SelectorExpr); ok {
									have[s.Sel.Name] = true
								}
							}
						}
						return true
					})
				}
			}
		}
		for c := range classes {
			if !have[c] {
				t.Errorf("%s: %s has no case for flow.%s", path, fn, c)
			}
		}
	}
}

// Rule 4: a wrapper of a connection passes half-close on.
func TestConnWrappersHalfClose(t *testing.T) {
	wrappers := map[string]string{}
	halfClose := map[string]bool{}
	for _, f := range source(t) {
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				for _, s := range d.Specs {
					ts, ok := s.(*ast.TypeSpec)
					if !ok {
						continue
					}
					if st, ok := ts.Type.(*ast.StructType); ok {
						for _, field := range st.Fields.List {
							if sel, ok := field.Type.(*ast.SelectorExpr); ok && len(field.Names) == 0 && sel.Sel.Name == "Conn" {
								wrappers[f.pkg+"."+ts.Name.Name] = f.path
							}
						}
					}
				}
			case *ast.FuncDecl:
				if d.Recv != nil && d.Name.Name == "CloseWrite" {
					typ := d.Recv.List[0].Type
					if star, ok := typ.(*ast.StarExpr); ok {
						typ = star.X
					}
					if id, ok := typ.(*ast.Ident); ok {
						halfClose[f.pkg+"."+id.Name] = true
					}
				}
			}
		}
	}
	if len(wrappers) == 0 {
		t.Error("found no type that embeds net.Conn: the test looks for the wrong thing")
	}
	for name, path := range wrappers {
		if !halfClose[name] {
			t.Errorf("%s: %s embeds net.Conn and hides CloseWrite", path, name)
		}
	}
}

// Rule 7: size is a smell. The ten largest are printed; twice the habit fails.
func TestSizes(t *testing.T) {
	const (
		fileHabit    = 400
		funcHabit    = 60
		packageHabit = 900
	)
	type item struct {
		name  string
		lines int
	}
	var sizes [3][]item
	packages := map[string]int{}
	for _, f := range source(t) {
		if f.test {
			continue
		}
		lines := fset.File(f.ast.Pos()).LineCount()
		sizes[0] = append(sizes[0], item{f.path, lines})
		packages[f.pkg] += lines
		for _, d := range f.ast.Decls {
			if fd, ok := d.(*ast.FuncDecl); ok {
				sizes[1] = append(sizes[1], item{f.path + ": " + fd.Name.Name, fset.Position(fd.End()).Line - fset.Position(fd.Pos()).Line + 1})
			}
		}
	}
	for pkg, n := range packages {
		sizes[2] = append(sizes[2], item{pkg, n})
	}
	for i, what := range []string{"files", "functions", "packages"} {
		habit := []int{fileHabit, funcHabit, packageHabit}[i]
		slices.SortFunc(sizes[i], func(a, b item) int { return b.lines - a.lines })
		var out strings.Builder
		for _, it := range sizes[i][:10] {
			fmt.Fprintf(&out, "%6d  %s\n", it.lines, it.name)
			if it.lines > 2*habit {
				t.Errorf("%s has %d lines, more than twice the habit of %d", it.name, it.lines, habit)
			}
		}
		t.Logf("the ten largest %s, in lines:\n%s", what, out.String())
	}
}

// Rule 13: a span of time is measured with the monotonic clock. The wall clock jumps
// when it is set, so no time is kept as a number of it.
func TestNoWallClockSpans(t *testing.T) {
	for _, f := range source(t) {
		if f.test || f.path == "internal/testnet/cert.go" { // a serial number
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			bad := slices.Contains([]string{"UnixNano", "UnixMicro", "UnixMilli"}, sel.Sel.Name)
			if sel.Sel.Name == "Round" && len(call.Args) == 1 {
				zero, isLiteral := call.Args[0].(*ast.BasicLit)
				bad = isLiteral && zero.Value == "0"
			}
			if bad {
				t.Errorf("%s: %s drops the monotonic clock: keep the time.Time, or count from a time.Now() of the process", fset.Position(n.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
}

// Rule 8: only main ends the process and begins contexts.
func TestNoExits(t *testing.T) {
	forbidden := map[string]string{
		"log.Fatal": "return the error", "log.Fatalf": "return the error", "os.Exit": "return the error",
		"context.Background": "take the context as a parameter", "context.TODO": "take the context as a parameter",
	}
	for _, f := range source(t) {
		if f.test || f.ast.Name.Name == "main" || f.pkg == "internal/nstest" { // nstest is a TestMain
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if id, ok := sel.X.(*ast.Ident); ok {
					if instead, bad := forbidden[id.Name+"."+sel.Sel.Name]; bad {
						t.Errorf("%s: %s.%s: %s", fset.Position(n.Pos()), id.Name, sel.Sel.Name, instead)
					}
				}
			}
			return true
		})
	}
}
