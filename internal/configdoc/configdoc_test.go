package configdoc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
)

// TestExamples checks that every YAML example in the reference page is a valid
// configuration, and that every section has one.
func TestExamples(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users") // at /etc/pando/users in an example
	if err := os.WriteFile(users, []byte("ann:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	for _, k := range config.Keys() {
		sections[k.Section()] = true
	}
	for part := range strings.SplitSeq(string(page), "\n## ") {
		heading, _, _ := strings.Cut(part, "\n")
		examples := strings.Split(part, "```yaml\n")[1:]
		if sections[heading] && len(examples) == 0 {
			t.Errorf("section %s has no example", heading)
		}
		for _, example := range examples {
			example, _, _ = strings.Cut(example, "```")
			if sections[heading] && !strings.Contains("\n"+example, "\n"+heading+":") {
				t.Errorf("the example of section %s does not set it:\n%s", heading, example)
			}
			example = strings.ReplaceAll(example, "/etc/pando/users", users)
			file := filepath.Join(t.TempDir(), "example.yaml")
			if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := config.Load(file, nil, nil); err != nil {
				t.Errorf("section %s: %v\n%s", heading, err, example)
			}
		}
	}
}

// TestDescriptions checks that the schema's comments are read at every level, as one
// paragraph.
func TestDescriptions(t *testing.T) {
	list, err := descriptions(filepath.Join("..", "config", "schema.go"))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, d := range list {
		have[d.path] = d.plain()
	}
	for path, want := range map[string]string{
		"log":                   "What is written to standard error.",
		"tailnet.tags":          "Tags of the device, each as tag:name.",
		"policy.rules[].action": "allow or deny.",
	} {
		if have[path] != want {
			t.Errorf("the description of %s is %q, want %q", path, have[path], want)
		}
	}
	for _, k := range config.Keys() {
		if have[k.Path] == "" {
			t.Errorf("%s has no description", k.Path)
		}
	}
}

// TestPage checks what the template may hold.
func TestPage(t *testing.T) {
	for name, c := range map[string]struct{ template, want string }{
		"missing": {"# Page\n", "is missing"},
		"unknown": {"<!-- keys: nothing -->\n", `section "nothing" is unknown`},
		"twice":   {"<!-- keys: log -->\n<!-- keys: log -->\n", `section "log" is unknown, or there twice`},
	} {
		if _, err := page(c.template, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: page gives the error %v, want %s", name, err, c.want)
		}
	}
}
