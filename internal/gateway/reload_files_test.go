package gateway

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Without a file descriptor to read it with, a file has not changed. A process of
// its own has none.
func TestNoFileToReadWith(t *testing.T) {
	if os.Getenv("GATEWAY_NO_FILES") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoFileToReadWith$", "-test.v")
		cmd.Env = append(os.Environ(), "GATEWAY_NO_FILES=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !strings.Contains(string(out), "--- PASS: TestNoFileToReadWith") {
			t.Fatal(err)
		}
		return
	}
	files := []string{"reload.go", "missing"}
	if _, err := fingerprint(files); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1, Max: 1}); err != nil {
		t.Fatal(err)
	}
	if seen, err := fingerprint(files); !exhausted(err) {
		t.Errorf("%q, %v", seen, err)
	}
}
