package mux

import (
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestOutOfFiles checks that the mux neither ends nor spins when the process is
// out of file descriptors, and that it serves again as soon as some are free. It
// runs in a process of its own with few descriptors.
func TestOutOfFiles(t *testing.T) {
	if os.Getenv("MUX_FEW_FILES") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOutOfFiles$", "-test.v")
		cmd.Env = append(os.Environ(), "MUX_FEW_FILES=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !strings.Contains(string(out), "--- PASS: TestOutOfFiles") {
			t.Fatal(err)
		}
		return
	}
	s := start(t, 0)
	s.dial(t, []byte("G"))
	h := <-s.taken
	h.c.Close()
	// These clients are in the listener's queue when the descriptors run out.
	var clients []net.Conn
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 40, Max: 40}); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := net.Dial("tcp", s.ln.Addr().String())
		if err != nil {
			break
		}
		clients = append(clients, c)
	}
	// The log has few of the failures. Each line says how long the mux waits after
	// it, and that grows with each failure, unless the mux takes some for successes.
	var pauses []string
	testkit.Eventually(t, "two failures to accept in the log", func() bool {
		pauses = regexp.MustCompile(`accept failed.* retry_in=(\S+)`).FindAllString(s.log.String(), -1)
		return len(pauses) >= 2
	})
	if last := pauses[len(pauses)-1]; strings.HasSuffix(last, "retry_in=5ms") {
		t.Errorf("the latest failure to accept is %q, want a pause of more than the first 5ms", last)
	}
	t.Logf("with %d clients and no descriptors left: %q", len(clients), pauses)
	for _, c := range clients {
		c.Close()
	}
	begin := time.Now()
	s.dial(t, []byte("GET"))
	select {
	case <-s.taken:
		t.Logf("the mux serves again %v after descriptors became free", time.Since(begin).Round(time.Millisecond))
	case <-time.After(10 * time.Second):
		t.Error("the mux served no client within 10 s after descriptors became free")
	}
}
