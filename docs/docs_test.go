// Package docs checks the pages beside it: links, make targets, configurations,
// paths and Go code. The packages cli and e2e check the commands.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
)

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
	for _, p := range testkit.Pages(t, "..") {
		for _, m := range mdLink.FindAllStringSubmatch(p.Text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			file := filepath.Join("..", filepath.Dir(p.Path), path)
			if path == "" {
				file = filepath.Join("..", p.Path)
			}
			data, err := os.ReadFile(file)
			if info, statErr := os.Stat(file); statErr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s links to %s: %v", p.Path, m[1], err)
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
				t.Errorf("%s links to %s, which has no such heading", p.Path, m[1])
			}
		}
	}
}

// TestDocsEveryPageIsLinked checks that a reader of README finds every page.
func TestDocsEveryPageIsLinked(t *testing.T) {
	linked := map[string]bool{"README.md": true, "CHANGELOG.md": true}
	for _, p := range testkit.Pages(t, "..") {
		for _, m := range mdLink.FindAllStringSubmatch(p.Text, -1) {
			path, _, _ := strings.Cut(m[1], "#")
			linked[filepath.Join(filepath.Dir(p.Path), path)] = true
		}
	}
	for _, p := range testkit.Pages(t, "..") {
		if !linked[p.Path] {
			t.Errorf("no page links to %s", p.Path)
		}
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
	for _, p := range testkit.Pages(t, "..") {
		for _, m := range makeTarget.FindAllStringSubmatch(p.Text, -1) {
			n++
			if target := m[1] + m[2]; !regexp.MustCompile(`(?m)^` + target + `:`).Match(makefile) {
				t.Errorf("%s: make %s does not exist", p.Path, target)
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
	for _, p := range testkit.Pages(t, "..") {
		for _, block := range p.Blocks() {
			if block.Language != "yaml" {
				continue
			}
			first, _, _ := strings.Cut(block.Text, "\n")
			switch first {
			case "# values of the chart", "# a manifest", "# part of a container": // the end-to-end tests use these
				continue
			}
			n++
			cfg := config.Default()
			err := config.Parse([]byte(block.Text), &cfg)
			cfg.Auth.UsersFile = "" // only the replica has the file
			if err == nil {
				err = cfg.Validate()
			}
			if err != nil {
				t.Errorf("%s: %v in\n%s", p.Path, err, block.Text)
			}
		}
	}
	if n < 2 {
		t.Errorf("found only %d configurations: the test looks for the wrong thing", n)
	}
}

var repoPath = regexp.MustCompile("`((?:internal|cmd|charts|e2e|docs|tools|bench)/[A-Za-z0-9_./-]*)`")

// TestDocsPaths checks that every file and folder that a page names exists.
func TestDocsPaths(t *testing.T) {
	n := 0
	for _, p := range testkit.Pages(t, "..") {
		if p.Path == "docs/comparison.md" { // it names files of other projects
			continue
		}
		for _, m := range repoPath.FindAllStringSubmatch(p.Text, -1) {
			n++
			if _, err := os.Stat("../" + m[1]); err != nil && !strings.Contains(m[1], "NAME") {
				t.Errorf("%s names %s: %v", p.Path, m[1], err)
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
