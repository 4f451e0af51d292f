package docs

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestDocsVersion checks that the chart installs the newest version of the
// changelog, and that the pages name no other.
func TestDocsVersion(t *testing.T) {
	newest := first(t, "../CHANGELOG.md", `(?m)^## (\d+\.\d+\.\d+) - `)
	for _, field := range []string{"version", "appVersion"} {
		if got := first(t, "../charts/pando/Chart.yaml", `(?m)^`+field+`: (.*)$`); got != newest {
			t.Errorf("charts/pando/Chart.yaml has the %s %s, want %s, the newest version of CHANGELOG.md", field, got, newest)
		}
	}
	tag := regexp.MustCompile(`(?:image\.tag=|/pando:)(\d+\.\d+\.\d+)`)
	n := 0
	for _, p := range testkit.Pages(t, "..") {
		for _, m := range tag.FindAllStringSubmatch(p.Text, -1) {
			n++
			if m[1] != newest {
				t.Errorf("%s has %s, want the version %s", p.Path, m[0], newest)
			}
		}
	}
	if n < 5 {
		t.Errorf("found only %d versions in the pages: the test looks for the wrong thing", n)
	}
}

// first returns what the first group of expr matches in a file.
func first(t *testing.T, file, expr string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(expr).FindSubmatch(data)
	if m == nil {
		t.Fatalf("%s has no %s", file, expr)
	}
	return string(m[1])
}

// TestDocsQuickStart checks that README installs and checks a fleet with the
// commands of docs/kubernetes.md, which the end-to-end tests run.
func TestDocsQuickStart(t *testing.T) {
	commands := map[string][]string{}
	for _, p := range testkit.Pages(t, "..") {
		for _, c := range p.Commands() {
			if c.Block.Language == "sh" {
				key := p.Path + ": " + c.Block.Heading
				commands[key] = append(commands[key], c.Line)
			}
		}
	}
	got := commands["README.md: Kubernetes in six commands"]
	want := append(commands["docs/kubernetes.md: Install"], commands["docs/kubernetes.md: Check that it works"]...)
	if len(got) != 6 {
		t.Errorf("the quick start of README.md has %d commands, want 6", len(got))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("README.md and docs/kubernetes.md differ (-kubernetes.md +README.md):\n%s", diff)
	}
}

// TestDocsGo checks that the Go code of the pages is in the source. Comments may
// differ, because they explain other things there.
func TestDocsGo(t *testing.T) {
	var source []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "tools") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			source = append(source, tokens(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(source, "\n")
	n := 0
	for _, p := range testkit.Pages(t, "..") {
		for _, b := range p.Blocks() {
			if b.Language != "go" {
				continue
			}
			for part := range strings.SplitSeq(b.Text, "\n\n") {
				n++
				if !strings.Contains(all, tokens([]byte(part))) {
					t.Errorf("%s: the source does not contain\n%s", p.Path, part)
				}
			}
		}
	}
	if n < 4 {
		t.Errorf("found only %d pieces of Go code: the test looks for the wrong thing", n)
	}
}

// tokens returns Go code with one space between two tokens, without comments and
// line ends.
func tokens(code []byte) string {
	var s scanner.Scanner
	s.Init(token.NewFileSet().AddFile("", -1, len(code)), code, nil, 0)
	var out strings.Builder
	for {
		_, tok, text := s.Scan()
		switch {
		case tok == token.EOF:
			return out.String()
		case tok == token.SEMICOLON && text == "\n":
		case tok.IsLiteral() || tok.IsKeyword():
			out.WriteString(" " + text)
		default:
			out.WriteString(" " + tok.String())
		}
	}
}
