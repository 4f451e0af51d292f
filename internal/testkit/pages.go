package testkit

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Page is one Markdown page of the project.
type Page struct {
	Path string // from the root, with slashes
	Text string
}

// Block is one code block of a page.
type Block struct {
	Language string // the word after the fence: "text" for output; empty for an indented block, which has commands
	Heading  string // the heading of level 2 above the block; empty means none
	Text     string
}

// Command is one command line that a page shows, without its comment.
type Command struct {
	Page  string // path of the page
	Block Block  // zero for a command inside a sentence or a table
	Line  string
}

// Pages returns every Markdown page of the project. root is the project's folder.
func Pages(t testing.TB, root string) []Page {
	t.Helper()
	var list []Page
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md", "bench/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, Page{filepath.ToSlash(rel), string(data)})
		}
	}
	if len(list) < 20 {
		t.Fatalf("found only %d pages below %s: the test looks in the wrong place", len(list), root)
	}
	return list
}

// Blocks returns the fenced and the indented code blocks of p, in order.
func (p Page) Blocks() []Block {
	var list []Block
	var open *Block // the block that the lines before belong to
	heading := ""
	fenced := false
	blank := true // the line before was empty
	end := func() {
		if open != nil {
			list = append(list, *open)
		}
		open = nil
		fenced = false
	}
	for line := range strings.Lines(p.Text) {
		code, indented := strings.CutPrefix(line, "    ")
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fenced && fence:
			end()
		case fenced:
			open.Text += line
		case fence:
			end()
			open = &Block{Language: strings.TrimSpace(language), Heading: heading}
			fenced = true
		case indented && open == nil && blank:
			open = &Block{Heading: heading, Text: code}
		case indented && open != nil:
			open.Text += code
		default:
			end()
			if h, ok := strings.CutPrefix(line, "## "); ok {
				heading = strings.TrimSpace(h)
			}
		}
		blank = strings.TrimSpace(line) == ""
	}
	end()
	return list
}

var (
	comment  = regexp.MustCompile(`\s+# .*$`)
	codeSpan = regexp.MustCompile("`([^`]+)`")
	// inSentences are the programs whose commands a page also shows inside a
	// sentence. Two words are the name of a command, such as helm upgrade.
	inSentences = regexp.MustCompile(`^(curl|docker|git|go|helm|k3s|kind|kubectl|make|nslookup|pando|skopeo)( \S+){2,}$`)
	assignment  = regexp.MustCompile(`^([A-Z_]+=\S*\s+)+`)
)

// Commands returns every command that p shows: the lines of its sh blocks and of
// its indented blocks, and commands inside sentences and tables.
func (p Page) Commands() []Command {
	var list []Command
	prose := p.Text
	for _, b := range p.Blocks() {
		prose = strings.Replace(prose, b.Text, "", 1)
		if b.Language != "" && b.Language != "sh" {
			continue
		}
		for line := range strings.Lines(b.Text) {
			line = strings.TrimSpace(comment.ReplaceAllString(line, ""))
			if line != "" {
				list = append(list, Command{p.Path, b, line})
			}
		}
	}
	prose = strings.ReplaceAll(prose, "```", "")
	for _, m := range codeSpan.FindAllStringSubmatch(prose, -1) {
		if line := strings.Join(strings.Fields(m[1]), " "); inSentences.MatchString(line) {
			list = append(list, Command{Page: p.Path, Line: line})
		}
	}
	return list
}

// Args returns the words of c without variables that stand before the command,
// and without the quotes around a word.
func (c Command) Args() []string {
	return strings.Fields(strings.ReplaceAll(assignment.ReplaceAllString(c.Line, ""), `"`, ""))
}
