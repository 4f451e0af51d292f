package archtest

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
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
