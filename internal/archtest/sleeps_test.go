package archtest

import (
	"go/ast"
	"testing"
)

// Rule 19: time.Sleep waits for the clock of synctest, or says beside it why there is
// no event to wait for.
func TestSleeps(t *testing.T) {
	n := 0
	for _, f := range source(t) {
		explained := map[int]bool{} // lines with a comment on them, or just above
		for _, group := range f.ast.Comments {
			end := fset.Position(group.End()).Line
			explained[end] = true
			explained[end+1] = true
		}
		ast.PreorderStack(f.ast, nil, func(node ast.Node, stack []ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok || !isCall(call, "time", "Sleep") {
				return true
			}
			n++
			if !inBubble(stack) && !explained[fset.Position(call.Pos()).Line] {
				t.Errorf("%s: time.Sleep without a reason: wait for the event, use testing/synctest, or write the reason beside it", fset.Position(call.Pos()))
			}
			return true
		})
	}
	if n < 20 {
		t.Errorf("found only %d calls of time.Sleep: the test looks for the wrong thing", n)
	}
}

// inBubble reports whether a node with these ancestors runs with the clock of synctest.
func inBubble(stack []ast.Node) bool {
	for _, node := range stack {
		if call, ok := node.(*ast.CallExpr); ok && isCall(call, "synctest", "Test") {
			return true
		}
	}
	return false
}

// isCall reports whether call calls the function name of package pkg.
func isCall(call *ast.CallExpr, pkg, name string) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || method.Sel.Name != name {
		return false
	}
	of, ok := method.X.(*ast.Ident)
	return ok && of.Name == pkg
}
