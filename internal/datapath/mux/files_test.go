package mux

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
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
	time.Sleep(2 * time.Second) // the test counts the failures in this time
	failures := strings.Count(s.log.String(), "accept failed")
	if failures == 0 || failures > 20 {
		t.Errorf("the log shows %d failures to accept in 2 s, want 1 to 20", failures)
	}
	t.Logf("with %d clients and no descriptors left, accept failed %d times in 2 s", len(clients), failures)
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

// lockedLog is a log that several goroutines write and read.
type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
