package cli

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

// Scripts switch on the exit status: each class has one, and the page says which.
func TestExitCodes(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{} // class to status
	for _, row := range regexp.MustCompile(`\| ([0-9]+(?:, [0-9]+)*) \| ([a-z_]+(?:, [a-z_]+)*) `).FindAllStringSubmatch(strings.ReplaceAll(string(page), "| 15", "\n| 15"), -1) {
		codes, classes := strings.Split(row[1], ", "), strings.Split(row[2], ", ")
		for i := range codes {
			said[classes[i]] = codes[i]
		}
	}
	seen := map[int]flow.Class{}
	for _, c := range flow.Classes() {
		code, ok := exitCodes[c]
		if other, twice := seen[code]; !ok || twice || (code == 0) != (c == flow.OK) || code == 1 {
			t.Errorf("%v has status %d, %v; so has %v", c, code, ok, other)
		}
		seen[code] = c
		if said[c.String()] != fmt.Sprint(code) {
			t.Errorf("%v has status %d, and docs/operations.md says %q", c, code, said[c.String()])
		}
	}
	if code, told := ExitCode(fmt.Errorf("x: %w", exit(17))); code != 17 || !told {
		t.Errorf("%d, %v", code, told)
	}
	if code, told := ExitCode(os.ErrNotExist); code != 1 || told {
		t.Errorf("%d, %v", code, told)
	}
}

func TestExplainMistakes(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		args       []string
	}{
		{"nobody_there", "does a replica run there, with listen.admin set?", []string{"--admin", "127.0.0.1:1", "x:1"}},
		{"bad_admin", "write host:port", []string{"--admin", "a b", "x:1"}},
		{"admin_url", "write host:port", []string{"--admin", "http://127.0.0.1:9002", "x:1"}},
		{"admin_without_port", "write host:port", []string{"--admin", "localhost", "x:1"}},
		{"empty_target", "leave it out to check the replica itself", []string{""}},
		{"no_ca", "--ca: open /nonexistent", []string{"--ca", "/nonexistent", "x:1"}},
		{"two_targets", "accepts at most 1 arg", []string{"x:1", "y:1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, _, err := run(t, nil, append([]string{"explain"}, tc.args...)...); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
