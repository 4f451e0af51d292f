package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// TestExitCodes checks that each class has an exit status of its own, which
// docs/troubleshooting.md lists. Scripts switch on it.
func TestExitCodes(t *testing.T) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{} // exit status by class
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)`[^|]*\\|.*\\| ([0-9]+) \\|$")
	for _, cells := range row.FindAllStringSubmatch(string(page), -1) {
		documented[cells[1]] = cells[2]
	}
	seen := map[int]flow.Class{}
	for _, c := range flow.Classes() {
		code, ok := exitCodes[c]
		if !ok {
			t.Errorf("class %v has no exit status", c)
			continue
		}
		if other, twice := seen[code]; twice {
			t.Errorf("classes %v and %v both have exit status %d", other, c, code)
		}
		if (code == 0) != (c == flow.OK) || code == 1 {
			t.Errorf("class %v has exit status %d, want 0 for ok only, and never 1, which is for other errors", c, code)
		}
		seen[code] = c
		if documented[c.String()] != fmt.Sprint(code) {
			t.Errorf("class %v: docs/troubleshooting.md has exit status %q, want %d", c, documented[c.String()], code)
		}
	}
	if code, printed := ExitCode(fmt.Errorf("x: %w", exit(17))); code != 17 || !printed {
		t.Errorf("ExitCode(exit(17)) = %d, %v; want 17, true", code, printed)
	}
	if code, printed := ExitCode(os.ErrNotExist); code != 1 || printed {
		t.Errorf("ExitCode(%v) = %d, %v; want 1, false", os.ErrNotExist, code, printed)
	}
}

// TestExitOf checks the exit status for what a replica answers, also for a class that
// only a newer replica knows.
func TestExitOf(t *testing.T) {
	for class, want := range map[string]int{"ok": 0, "internal": 10, "refused": 17, "new_class": 10, "": 10} {
		answer, err := json.Marshal(status.Explanation{Target: "db:5432", Class: class})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = run(t, nil, "explain", "--admin", adminServer(t, answer), "db:5432")
		code, printed := ExitCode(err)
		if err == nil {
			code = 0
		}
		if code != want || err != nil && !printed {
			t.Errorf("class %q: exit status %d, error %v; want %d, with the explanation printed", class, code, err, want)
		}
	}
}

func TestExplainMistakes(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		args       []string
	}{
		{"nobody_there", "check that a replica runs there, with listen.admin set", []string{"--admin", "127.0.0.1:1", "x:1"}},
		{"bad_admin", "write host:port", []string{"--admin", "a b", "x:1"}},
		{"admin_url", "write host:port", []string{"--admin", "http://127.0.0.1:9002", "x:1"}},
		{"admin_without_port", "write host:port", []string{"--admin", "localhost", "x:1"}},
		{"no_timeout", `invalid --timeout "0s"`, []string{"--timeout", "0s", "x:1"}},
		{"empty_target", "leave it out to check the replica itself", []string{""}},
		{"no_ca", "cannot read --ca /nonexistent: no such file or directory", []string{"--ca", "/nonexistent", "x:1"}},
		{"two_targets", "pando explain takes one target, but got 2", []string{"x:1", "y:1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := run(t, nil, append([]string{"explain"}, tc.args...)...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q in it", err, tc.want)
			}
		})
	}
}
