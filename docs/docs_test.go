// Package docs checks the pages beside it: links, commands, make targets and
// configurations.
package docs

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/cli"
	"github.com/pandoproxy/pando/internal/config"
)

// page is one Markdown file.
type page struct {
	path string // from the root
	text string
}

// pages returns every Markdown page of the project.
func pages(t *testing.T) []page {
	t.Helper()
	var list []page
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md", "bench/*.md"} {
		files, err := filepath.Glob("../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, page{strings.TrimPrefix(f, "../"), string(data)})
		}
	}
	if len(list) < 20 {
		t.Fatalf("found only %d pages: the test looks in the wrong place", len(list))
	}
	return list
}

var (
	mdLink   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notASlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// slug is the anchor that Markdown renderers give a heading.
func slug(heading string) string {
	return strings.ReplaceAll(notASlug.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// TestDocsLinks checks that every relative link leads to a file, and every
// anchor to a heading.
func TestDocsLinks(t *testing.T) {
	for _, p := range pages(t) {
		for _, m := range mdLink.FindAllStringSubmatch(p.text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			file := filepath.Join("..", filepath.Dir(p.path), path)
			if path == "" {
				file = filepath.Join("..", p.path)
			}
			data, err := os.ReadFile(file)
			if info, statErr := os.Stat(file); statErr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s links to %s: %v", p.path, m[1], err)
				continue
			}
			if anchor == "" {
				continue
			}
			found := false
			for _, h := range heading.FindAllStringSubmatch(string(data), -1) {
				found = found || slug(h[1]) == anchor
			}
			if !found {
				t.Errorf("%s links to %s, which has no such heading", p.path, m[1])
			}
		}
	}
}

// TestDocsEveryPageIsLinked checks that a reader of README finds every page.
func TestDocsEveryPageIsLinked(t *testing.T) {
	linked := map[string]bool{"README.md": true, "CHANGELOG.md": true}
	for _, p := range pages(t) {
		for _, m := range mdLink.FindAllStringSubmatch(p.text, -1) {
			path, _, _ := strings.Cut(m[1], "#")
			linked[filepath.Join(filepath.Dir(p.path), path)] = true
		}
	}
	for _, p := range pages(t) {
		if !linked[p.path] {
			t.Errorf("no page links to %s", p.path)
		}
	}
}

var command = regexp.MustCompile(`(?m)(?:^|\s)(?:\./bin/|/)?pando ((?:gateway|check|status|flows|explain|env|coredns|version|demo)\b[^\n#|]*)`)

// TestDocsCommands checks that every pando command in a code block exists, with
// its flags.
func TestDocsCommands(t *testing.T) {
	n := 0
	for _, p := range pages(t) {
		for _, block := range codeBlocks(p.text) {
			for _, m := range command.FindAllStringSubmatch(block.text, -1) {
				n++
				args := append(strings.Fields(strings.NewReplacer("…", "", "\\", "").Replace(m[1])), "--help")
				var out bytes.Buffer
				err := cli.Run(t.Context(), t.Context(), cli.Env{Args: args, Stdout: &out, Stderr: &out})
				if err != nil || !strings.Contains(out.String(), "Usage:") {
					t.Errorf("%s: pando %s: %v", p.path, m[1], err)
				}
			}
		}
	}
	if n < 15 {
		t.Errorf("found only %d commands: the test looks for the wrong thing", n)
	}
}

var makeTarget = regexp.MustCompile("`make ([a-z0-9-]+)|(?m)^(?:    )?make ([a-z0-9-]+)")

// TestDocsMakeTargets checks that every make target that a page names exists.
func TestDocsMakeTargets(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range pages(t) {
		for _, m := range makeTarget.FindAllStringSubmatch(p.text, -1) {
			n++
			if target := m[1] + m[2]; !regexp.MustCompile(`(?m)^` + target + `:`).Match(makefile) {
				t.Errorf("%s: make %s does not exist", p.path, target)
			}
		}
	}
	if n < 20 {
		t.Errorf("found only %d targets: the test looks for the wrong thing", n)
	}
}

// TestDocsConfigurations checks that every YAML block is a valid configuration,
// unless its first line says that it is something else.
func TestDocsConfigurations(t *testing.T) {
	n := 0
	for _, p := range pages(t) {
		for _, block := range codeBlocks(p.text) {
			if block.language != "yaml" {
				continue
			}
			first, _, _ := strings.Cut(block.text, "\n")
			switch first {
			case "# values of the chart", "# a manifest", "# part of a container": // the end-to-end tests use these
				continue
			}
			n++
			cfg := config.Default()
			err := config.Parse([]byte(block.text), &cfg)
			if err == nil {
				err = cfg.Validate()
			}
			if err != nil {
				t.Errorf("%s: %v in\n%s", p.path, err, block.text)
			}
		}
	}
	if n < 2 {
		t.Errorf("found only %d configurations: the test looks for the wrong thing", n)
	}
}

type codeBlock struct{ language, text string }

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// codeBlocks returns the fenced and the indented blocks of a page.
func codeBlocks(text string) (list []codeBlock) {
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		list = append(list, codeBlock{m[1], m[2]})
	}
	var indented strings.Builder
	for line := range strings.Lines(fence.ReplaceAllString(text, "")) {
		if rest, ok := strings.CutPrefix(line, "    "); ok {
			indented.WriteString(rest)
		}
	}
	return append(list, codeBlock{"", indented.String()})
}

var repoPath = regexp.MustCompile("`((?:internal|cmd|charts|e2e|docs|tools|bench)/[A-Za-z0-9_./-]*)`")

// TestDocsPaths checks that every file and folder that a page names exists.
func TestDocsPaths(t *testing.T) {
	n := 0
	for _, p := range pages(t) {
		if p.path == "docs/comparison.md" { // it names files of other projects
			continue
		}
		for _, m := range repoPath.FindAllStringSubmatch(p.text, -1) {
			n++
			if _, err := os.Stat("../" + m[1]); err != nil && !strings.Contains(m[1], "NAME") {
				t.Errorf("%s names %s: %v", p.path, m[1], err)
			}
		}
	}
	if n < 50 {
		t.Errorf("found only %d paths: the test looks for the wrong thing", n)
	}
}

// TestArchitectureNamesEveryPackage checks that the table of ARCHITECTURE.md has
// a row for each package.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"../internal/*", "../internal/datapath/*", "../internal/tailnet/*"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			info, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimPrefix(dir, "../")
			short := "`…/" + filepath.Base(dir) + "`"
			if info.IsDir() && filepath.Base(dir) != "testdata" && !strings.Contains(string(text), "`"+name+"`") && !strings.Contains(string(text), short) {
				t.Errorf("ARCHITECTURE.md does not name %s", name)
			}
		}
	}
}
