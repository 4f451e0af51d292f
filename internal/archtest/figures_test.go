package archtest

import (
	"fmt"
	"go/ast"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// longLine is how many characters a line has at most, as a habit.
const longLine = 120

// figures are counts over the code, without the tests except testLines.
type figures struct {
	files     int
	lines     int
	testLines int
	code      int            // lines that are neither empty nor a comment
	comments  int            // lines that hold only a comment
	long      int            // lines of more than longLine characters
	longest   string         // path of the longest file
	longestN  int            // its lines
	functions []int          // lines of each function, sorted
	packages  map[string]int // lines of each package

	headers  int // if headers that set what is not err, or do one thing and test another
	threes   int // lines with three assignments or more
	literals int // literals of more than three fields in one line

	gatewayMethods int
	gatewayFields  int
}

// Rule 11: the figures that keep the structure readable. They are printed, and
// fail above their bound.
func TestFigures(t *testing.T) {
	n := figures{packages: map[string]int{}}
	for _, f := range source(t) {
		if f.test {
			n.testLines += fset.File(f.ast.Pos()).LineCount()
			continue
		}
		n.files++
		n.countLines(t, f)
		n.countSyntax(f)
	}
	slices.Sort(n.functions)
	of := func(share int) int { return n.functions[(len(n.functions)-1)*share/100] }
	var out strings.Builder
	for _, row := range [][2]string{
		{"files", fmt.Sprint(n.files)},
		{"lines", fmt.Sprint(n.lines)},
		{"lines of tests / lines", fmt.Sprintf("%.2f", float64(n.testLines)/float64(n.lines))},
		{"lines of comments / lines of code", fmt.Sprintf("%.2f", float64(n.comments)/float64(n.code))},
		{"longest file", fmt.Sprintf("%d (%s)", n.longestN, n.longest)},
		{"lines of a function, median / 90 % / most", fmt.Sprintf("%d / %d / %d", of(50), of(90), of(100))},
		{fmt.Sprintf("lines of more than %d characters", longLine), fmt.Sprintf("%d (%.1f %%)", n.long, 100*float64(n.long)/float64(n.lines))},
	} {
		fmt.Fprintf(&out, "%-44s %s\n", row[0], row[1])
	}
	t.Logf("the code without its tests:\n%s", out.String())
	bound := func(what string, got, most int) {
		t.Logf("%4d of at most %d: %s", got, most, what)
		if got > most {
			t.Errorf("%s: %d, want at most %d", what, got, most)
		}
	}
	bound("if headers that set what is not err, or test another thing than they do", n.headers, 0)
	bound("lines with three assignments", n.threes, 0)
	bound("literals of more than three fields in one line", n.literals, 0)
	bound("methods of gateway.Gateway", n.gatewayMethods, 30)
	bound("fields of gateway.Gateway", n.gatewayFields, 18)
	largest := ""
	for pkg, lines := range n.packages {
		if largest == "" || lines > n.packages[largest] {
			largest = pkg
		}
	}
	bound("lines of the largest package, "+largest, n.packages[largest], 1400)
	if n.gatewayMethods == 0 || n.gatewayFields == 0 || n.comments == 0 {
		t.Error("found no gateway.Gateway, or no comment: the test looks in the wrong place")
	}
}

// countLines counts the lines of f.
func (n *figures) countLines(t *testing.T, f file) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", f.path))
	if err != nil {
		t.Fatal(err)
	}
	comment := map[int]bool{}
	for _, group := range f.ast.Comments {
		for line := fset.Position(group.Pos()).Line; line <= fset.Position(group.End()).Line; line++ {
			comment[line] = true
		}
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for i, line := range lines {
		text := strings.TrimSpace(line)
		switch {
		case text == "":
		case comment[i+1] && (strings.HasPrefix(text, "//") || strings.HasPrefix(text, "/*")):
			n.comments++
		default:
			n.code++
		}
		if utf8.RuneCountInString(line) > longLine {
			n.long++
		}
	}
	n.lines += len(lines)
	n.packages[f.pkg] += len(lines)
	if len(lines) > n.longestN {
		n.longest = f.path
		n.longestN = len(lines)
	}
}

// countSyntax counts functions, statements and literals of f, and what Gateway has.
func (n *figures) countSyntax(f file) {
	assignments := map[int]int{} // by line
	inFor := map[ast.Node]bool{}
	inGateway := f.pkg == "internal/gateway"
	ast.Inspect(f.ast, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncDecl:
			n.functions = append(n.functions, fset.Position(node.End()).Line-fset.Position(node.Pos()).Line+1)
			if inGateway && node.Recv != nil && strings.TrimPrefix(types.ExprString(node.Recv.List[0].Type), "*") == "Gateway" {
				n.gatewayMethods++
			}
		case *ast.TypeSpec:
			if s, ok := node.Type.(*ast.StructType); ok && inGateway && node.Name.Name == "Gateway" {
				for _, field := range s.Fields.List {
					n.gatewayFields += max(1, len(field.Names))
				}
			}
		case *ast.CompositeLit:
			if keyed(node) > 3 && fset.Position(node.Lbrace).Line == fset.Position(node.Rbrace).Line {
				n.literals++
			}
		case *ast.ForStmt:
			inFor[node.Init] = true
			inFor[node.Post] = true
		case *ast.IfStmt:
			if headerFault(node) != "" {
				n.headers++
			}
		case *ast.AssignStmt:
			if !inFor[node] && (len(node.Rhs) == 1 || !isSwap(node)) {
				assignments[fset.Position(node.Pos()).Line] += len(node.Rhs)
			}
		}
		return true
	})
	for _, count := range assignments {
		if count >= 3 {
			n.threes++
		}
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
