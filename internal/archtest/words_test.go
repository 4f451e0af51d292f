package archtest

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// dialect lists phrases that a reader stumbles over, each with what to write.
// CONTRIBUTING.md says why.
var dialect = []struct {
	phrase  *regexp.Regexp
	instead string
}{
	{word(`(goes|go|going|went) on`), "say what continues, or: keeping the previous one"},
	{word(`(is|are|was|were|be|been) told`), "say what the client gets, or what the log shows"},
	{word(`so (many|long|much)`), "name the number: Consecutive failures after which …"},
	{word(`anew`), "again, or: a new …"},
	{word(`(is|are|was|were) no`), "is not a …, or: there is no …"},
	{word(`(know|knows) (of )?no|as no`), "does not know, has no, or: is not a …"},
	{word(`hoped|hopes|patience|patient|believes?|believed`), "things are not persons"},
	{word(`clothes|riddles?|the books|at night`), "say it without a metaphor"},
	{word(`nobody|somebody`), "no client, every client, a person …"},
	{word(`looked after|looks after`), "checked"},
	{word(`till|else's|of which|wherein|thereof`), "two short sentences"},
	{word(`(can|may)('t| not)? be told apart`), "distinguish"},
	{word(`who (is|are|has|have|asks?|comes?|leaves?) `), "name the subject: a client that …"},
}

// allowed are phrases that hold a marker and are plain all the same.
var allowed = regexp.MustCompile(`(?i)\b(there (is|are|was|were) no|it is no longer|is no longer|are no longer|as long as|as soon as no|AsNobody|as nobody|nobody is the user)\b`)

func word(expr string) *regexp.Regexp { return regexp.MustCompile(`(?i)\b(` + expr + `)\b`) }

// markers returns the phrases of the dialect in text, each with its remedy.
func markers(text string) (found []string) {
	text = allowed.ReplaceAllString(text, "")
	for _, d := range dialect {
		if m := d.phrase.FindString(text); m != "" {
			found = append(found, strconv.Quote(m)+": "+d.instead)
		}
	}
	return found
}

// Rule 9: what people read is plain. String literals, comments and docs do not
// hold the phrases of dialect.
func TestPlainWords(t *testing.T) {
	for _, f := range source(t) {
		if f.path == "internal/archtest/words_test.go" {
			continue
		}
		for _, group := range f.ast.Comments {
			for _, m := range markers(group.Text()) {
				t.Errorf("%s: a comment says %s", fset.Position(group.Pos()), m)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil || text == "nobody" { // a user's name
				return true
			}
			for _, m := range markers(text) {
				t.Errorf("%s: a string says %s", fset.Position(lit.Pos()), m)
			}
			return true
		})
	}
}

// TestPlainDocs checks the pages, the chart and the manifests as TestPlainWords
// checks the code.
func TestPlainDocs(t *testing.T) {
	n := 0
	for _, pattern := range []string{"../../*.md", "../../docs/*.md*", "../../docs/design/*.md", "../../bench/*.md", "../../charts/pando/*.yaml", "../../charts/pando/templates/*", "../../charts/pando/*.json", "../../.github/*/*", "../../Makefile", "../../.ci/run"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			n++
			for i, line := range strings.Split(string(data), "\n") {
				for _, m := range markers(line) {
					t.Errorf("%s:%d says %s", strings.TrimPrefix(path, "../../"), i+1, m)
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("found only %d pages: the test looks in the wrong place", n)
	}
}
