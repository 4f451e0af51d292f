package archtest

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

// Rule 10: one assignment a line, unless it is a swap or a call with several
// results. An if header declares what its condition uses, or sets err.
func TestStatements(t *testing.T) {
	for _, f := range source(t) {
		exempt := map[ast.Node]bool{}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ForStmt: // i, j := 0, len(s)
				exempt[n.Init] = true
				exempt[n.Post] = true
			case *ast.AssignStmt:
				if len(n.Rhs) > 1 && !exempt[n] && !isSwap(n) {
					t.Errorf("%s: %d assignments in one statement; write one a line", fset.Position(n.Pos()), len(n.Rhs))
				}
			case *ast.ValueSpec:
				if len(n.Values) > 1 {
					t.Errorf("%s: %d values in one declaration; write one a line", fset.Position(n.Pos()), len(n.Values))
				}
			case *ast.IfStmt:
				if a, ok := n.Init.(*ast.AssignStmt); ok && f.test && a.Tok == token.DEFINE { // if got, want := f(), 3; got != want
					exempt[n.Init] = true
				}
				if why := headerFault(n); why != "" {
					t.Errorf("%s: the if header %s", fset.Position(n.Pos()), why)
				}
			}
			return true
		})
	}
}

// isSwap reports whether a assigns the same operands that it reads, as in
// a, b = b, a.
func isSwap(a *ast.AssignStmt) bool {
	var left, right []string
	for i := range a.Lhs {
		left = append(left, types.ExprString(a.Lhs[i]))
		right = append(right, types.ExprString(a.Rhs[i]))
	}
	slices.Sort(left)
	slices.Sort(right)
	return slices.Equal(left, right)
}

// headerFault says what is wrong with the init statement of an if, or "".
func headerFault(n *ast.IfStmt) string {
	switch init := n.Init.(type) {
	case nil:
		return ""
	case *ast.AssignStmt:
		if init.Tok != token.DEFINE {
			for _, l := range init.Lhs {
				if id, ok := l.(*ast.Ident); !ok || id.Name != "err" && id.Name != "_" {
					return "changes " + types.ExprString(l) + "; set it in a statement of its own"
				}
			}
			return ""
		}
		used := map[string]bool{}
		ast.Inspect(n.Cond, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				used[id.Name] = true
			}
			return true
		})
		for _, l := range init.Lhs {
			if used[l.(*ast.Ident).Name] {
				return ""
			}
		}
		return "declares what its condition does not use; declare it before"
	}
	return "does one thing and tests another; use two statements"
}

// Rule 11: the figures that keep the structure readable. They are printed, and
// fail above their bound.
func TestFigures(t *testing.T) {
	const (
		gatewayMethods = 30
		gatewayFields  = 18
		packageLines   = 1400
	)
	methods := 0
	fields := 0
	literals := 0
	packages := map[string]int{}
	for _, f := range source(t) {
		if f.test {
			continue
		}
		packages[f.pkg] += fset.File(f.ast.Pos()).LineCount()
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if f.pkg == "internal/gateway" && n.Recv != nil && strings.TrimPrefix(types.ExprString(n.Recv.List[0].Type), "*") == "Gateway" {
					methods++
				}
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok && f.pkg == "internal/gateway" && n.Name.Name == "Gateway" {
					for _, field := range s.Fields.List {
						fields += max(1, len(field.Names))
					}
				}
			case *ast.CompositeLit:
				if keyed(n) > 3 && fset.Position(n.Lbrace).Line == fset.Position(n.Rbrace).Line {
					literals++
					t.Logf("%s: a literal of more than three fields in one line", fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
	bound := func(what string, got, most int) {
		t.Logf("%4d of at most %d: %s", got, most, what)
		if got > most {
			t.Errorf("%s: %d, want at most %d", what, got, most)
		}
	}
	bound("methods of gateway.Gateway", methods, gatewayMethods)
	bound("fields of gateway.Gateway", fields, gatewayFields)
	bound("literals of more than three fields in one line", literals, 0)
	largest := ""
	for pkg, n := range packages {
		if largest == "" || n > packages[largest] {
			largest = pkg
		}
	}
	bound("lines of the largest package, "+largest, packages[largest], packageLines)
	if methods == 0 || fields == 0 {
		t.Error("found no gateway.Gateway: the test looks in the wrong place")
	}
}

// keyed counts the fields that a struct literal names.
func keyed(n *ast.CompositeLit) int {
	switch n.Type.(type) {
	case *ast.ArrayType, *ast.MapType: // a table
		return 0
	}
	count := 0
	for _, e := range n.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if _, ok := kv.Key.(*ast.Ident); ok {
				count++
			}
		}
	}
	return count
}
