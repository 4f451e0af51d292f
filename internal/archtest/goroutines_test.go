package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

// unguarded are the places that start goroutines without flow.Catch, each with the
// reason for which a panic there may end the process, or cannot happen. A goroutine
// that works for a client must catch panics, and does not belong here.
var unguarded = map[string]string{
	"cmd/pando/main.go: main runs func": "waits for a signal",

	"internal/gateway/status.go: serveAdmin runs func":  "runs the admin server, whose handlers are guarded",
	"internal/gateway/drain.go: logProgress runs func":  "works for the replica",
	"internal/gateway/gateway.go: Run runs func":        "works for the replica; mux, dnsserver and admin guard what they start",
	"internal/probe/probe.go: Run runs func":            "works for the replica",
	"internal/dnsserver/dnsserver.go: Serve runs func":  "runs the DNS server, whose handler is guarded",
	"internal/explain/target.go: probeTarget runs func": "sets a deadline",
	"internal/device/device.go: Run runs func":          "works for the replica",
	"internal/device/device.go: start runs func":        "works for the replica",
	"internal/fleet/fleet.go: Open runs s.save":         "works for the replica",
	"internal/logging/logging.go: admit runs c.flush":   "writes the lines of flows that have ended",

	"internal/tailnet/tailnet.go: Start runs func":            "works for the replica",
	"internal/tailnet/engine.go: bounded runs func":           "works for the replica",
	"internal/tailnet/dial.go: DialTCP runs func":             "marks a session",
	"internal/tailnet/inbound/inbound.go: TCP runs end":       "closes a connection",
	"internal/tailnet/control/login.go: needsLogin runs func": "works for the replica",
	"internal/tailnet/session/session.go: Run runs func":      "works for the replica",
	"internal/tailnet/session/warm.go: Warm runs func":        "works for the replica",

	"internal/datapath/mux/mux.go: Wait runs func":                             "waits for handlers",
	"internal/datapath/dial/dial.go: race runs reap":                           "closes connections",
	"internal/datapath/socks/socks.go: handshakeInTime runs func":              "sets a deadline",
	"internal/datapath/sni/sni.go: Serve runs func":                            "sets a deadline",
	"internal/datapath/resolve/dnsclient/dnsclient.go: exchangeOver runs func": "sets a deadline",
	"internal/datapath/resolve/explain.go: CheckZones runs func":               "calls dnsclient.AskOne, which is guarded",
	"internal/datapath/httpproxy/origin/pool.go: Put runs func":                "closes an idle connection, which no client uses",
}

// TestGoroutinesCatchPanics checks that each goroutine of the product either catches
// panics with flow.Catch, CatchIn or CatchTo, or is listed above. A panic that is not
// caught ends the process, and so the flows of all clients.
func TestGoroutinesCatchPanics(t *testing.T) {
	files := source(t)
	bodies := map[string]*ast.BlockStmt{} // of functions and methods, by package and name
	for _, f := range files {
		for _, d := range f.ast.Decls {
			if fd, ok := d.(*ast.FuncDecl); ok && !f.test && fd.Body != nil {
				bodies[f.pkg+"."+fd.Name.Name] = fd.Body
			}
		}
	}
	seen := map[string]bool{}
	guarded := 0
	for _, f := range files {
		if f.test || slices.Contains([]string{"internal/testnet", "internal/nstest", "internal/testkit", "internal/demo"}, f.pkg) || strings.HasPrefix(f.pkg, "e2e") || strings.HasPrefix(f.pkg, "bench") {
			continue
		}
		for _, d := range f.ast.Decls {
			fd, ok := d.(*ast.FuncDecl)
			if !ok || fd.Body == nil {
				continue
			}
			for _, start := range starts(fd) {
				key := f.path + ": " + fd.Name.Name + " runs " + start.name()
				if catches(start.runs, fd, f.pkg, bodies, 3) {
					guarded++
					continue
				}
				seen[key] = true
				if unguarded[key] == "" {
					t.Errorf("%s: %s starts a goroutine that does not catch panics: begin it with defer flow.Catch, CatchIn or CatchTo if it works for a client", fset.Position(start.pos), key)
				}
			}
		}
	}
	for key := range unguarded {
		if !seen[key] {
			t.Errorf("%q starts no unguarded goroutine any more; remove it from the list", key)
		}
	}
	if guarded < 10 {
		t.Errorf("found only %d guarded goroutines: the test looks for the wrong thing", guarded)
	}
	t.Logf("%d places start a goroutine that catches panics; %d functions are listed as needing none", guarded, len(unguarded))
}

// goroutine is a place that starts one.
type goroutine struct {
	pos  token.Pos
	runs ast.Expr // the function that it runs
}

// name returns the name of the function, or func for a literal.
func (g goroutine) name() string {
	if _, ok := g.runs.(*ast.FuncLit); ok {
		return "func"
	}
	return types.ExprString(g.runs)
}

// starts lists the places of fd that start a goroutine: the statement go, methods
// named Go, and functions that run one later.
func starts(fd *ast.FuncDecl) (list []goroutine) {
	ast.Inspect(fd.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			list = append(list, goroutine{n.Pos(), n.Call.Fun})
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && len(n.Args) > 0 && slices.Contains([]string{"Go", "TryGo", "AfterFunc", "DoChan"}, sel.Sel.Name) {
				list = append(list, goroutine{n.Pos(), n.Args[len(n.Args)-1]})
			}
		}
		return true
	})
	return list
}

// catches reports whether the function that fun stands for defers a catch, or calls one
// that does, at most depth calls below. What it does besides that call is not seen.
func catches(fun ast.Expr, in *ast.FuncDecl, pkg string, bodies map[string]*ast.BlockStmt, depth int) bool {
	var body *ast.BlockStmt
	switch fun := fun.(type) {
	case *ast.FuncLit:
		body = fun.Body
	case *ast.SelectorExpr: // a method of this package
		body = bodies[pkg+"."+fun.Sel.Name]
	case *ast.Ident:
		body = bodies[pkg+"."+fun.Name]
		if body == nil {
			body = localFunc(in, fun.Name)
		}
	}
	if body == nil || depth == 0 {
		return false
	}
	calls := []ast.Expr{}
	for _, stmt := range body.List {
		if d, ok := stmt.(*ast.DeferStmt); ok && isCatch(d.Call) {
			return true
		}
		ast.Inspect(stmt, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				calls = append(calls, c.Fun)
			}
			return true
		})
	}
	return slices.ContainsFunc(calls, func(c ast.Expr) bool { return catches(c, in, pkg, bodies, depth-1) })
}

// localFunc returns the body of the function that in assigns to name.
func localFunc(in *ast.FuncDecl, name string) (body *ast.BlockStmt) {
	ast.Inspect(in.Body, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok && len(a.Lhs) == 1 && len(a.Rhs) == 1 && fmt.Sprint(a.Lhs[0]) == name {
			if lit, ok := a.Rhs[0].(*ast.FuncLit); ok {
				body = lit.Body
			}
		}
		return true
	})
	return body
}

// isCatch reports whether c calls flow.Catch, CatchIn or CatchTo.
func isCatch(c *ast.CallExpr) bool {
	sel, ok := c.Fun.(*ast.SelectorExpr)
	return ok && fmt.Sprint(sel.X) == "flow" && slices.Contains([]string{"Catch", "CatchIn", "CatchTo"}, sel.Sel.Name)
}
