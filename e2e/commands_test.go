package e2e

// The test of this file needs no cluster: it has no build tag.

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/testkit"
)

// section is a part of a page whose sh blocks the tests run in order, because its
// commands change the cluster.
type section struct{ page, heading string }

var (
	sectionInstall = section{"docs/kubernetes.md", "Install"}
	sectionScale   = section{"docs/kubernetes.md", "Scale it"}
	sectionUpgrade = section{"docs/upgrading.md", "A fleet of the chart"}
	sectionRemove  = section{"docs/kubernetes.md", "Remove it"}
)

// commands returns the commands of the sh blocks of s.
func (s section) commands(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, c := range docsCommands(t) {
		if c.Page == s.page && c.Block.Heading == s.heading && c.Block.Language == "sh" {
			list = append(list, c.Line)
		}
	}
	if len(list) == 0 {
		t.Fatalf("%s has no sh block under %q", s.page, s.heading)
	}
	return list
}

// docsCommands returns the commands of all pages.
func docsCommands(t *testing.T) []testkit.Command {
	t.Helper()
	var list []testkit.Command
	for _, p := range testkit.Pages(t, "..") {
		list = append(list, p.Commands()...)
	}
	return list
}

var changes = regexp.MustCompile(`^kubectl (-n \S+ )?(create|delete|scale|apply|label)\b`)

// reads reports whether the tests run c as it stands, at any time: it is a kubectl
// command of an sh block that creates and removes nothing.
func reads(c testkit.Command) bool {
	return c.Block.Language == "sh" && strings.HasPrefix(c.Line, "kubectl ") && !changes.MatchString(c.Line)
}

// notRun lists the commands of the documentation that no test runs, each with the
// reason. A command is named by its beginning.
var notRun = map[string]string{
	"curl -x http://pando.pando:1055 ":       "the lab's pods have no curl; its own client sends the same request",
	"curl -x socks5h://127.0.0.1:1055 ":      "the tests of internal/gateway run curl with this proxy",
	"curl https://":                          "the lab's pods have no curl; noProxy sends the same request",
	"git grep ":                              "it only searches the tree",
	"git ls-files ":                          "it only lists files",
	"git tag -s ":                            "it makes a release",
	"go test ./internal/flow -update":        "it writes golden files",
	"helm package ":                          "it makes a release; TestChartRenders lints and renders the chart",
	"k3s ctr images import ":                 "the lab is not k3s; the page says that this is not tested",
	"kind load image-archive ":               "the lab is not kind; the page says that this is not tested",
	"kubectl get pods -A -o custom-columns=": "it only lists pods with their uids; the test of two pods with one Secret is in internal/fleet",
	"kubectl get --raw":                      "a sentence names the command; docs/kubernetes.md has it with paths",
	"nslookup ":                              "the lab's pods have no nslookup; noProxy looks the name up",
	"skopeo copy ":                           "it needs a registry",
}

// TestDocsCommandsRun checks that a test runs every command of the documentation,
// or that notRun says why none does.
func TestDocsCommandsRun(t *testing.T) {
	var changed []string
	for _, s := range []section{sectionInstall, sectionScale, sectionUpgrade, sectionRemove} {
		changed = append(changed, s.commands(t)...)
	}
	excused := map[string]bool{}
	n := 0
	for _, c := range docsCommands(t) {
		n++
		switch program := strings.TrimPrefix(c.Args()[0], "./bin/"); {
		case program == "pando": // package cli checks its arguments
		case program == "make": // package docs checks the targets
		case reads(c):
		case slices.ContainsFunc(changed, func(line string) bool {
			return line == c.Line || c.Block.Language == "" && strings.HasPrefix(line, c.Line)
		}):
		default:
			excuse := ""
			for begin := range notRun {
				if strings.HasPrefix(c.Line, begin) {
					excuse = begin
				}
			}
			if excuse == "" {
				t.Errorf("%s: no test runs %q; put it into an sh block that the tests run, or into notRun with the reason", c.Page, c.Line)
			}
			excused[excuse] = true
		}
	}
	for begin := range notRun {
		if !excused[begin] {
			t.Errorf("notRun has %q, and no page has such a command", begin)
		}
	}
	if n < 60 {
		t.Errorf("found only %d commands: the test looks for the wrong thing", n)
	}
}
