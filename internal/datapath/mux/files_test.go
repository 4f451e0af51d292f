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

// Out of file descriptors, the mux neither ends nor spins, and serves again as
// soon as there are some. A process of its own has the few.
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
	// Clients that are in the queue when the files run out.
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
	time.Sleep(2 * time.Second) // what is measured: how often it tries in that time
	failures := strings.Count(s.log.String(), "accept failed")
	if failures == 0 || failures > 20 {
		t.Errorf("%d failures to accept were logged in 2 s, want some, and few", failures)
	}
	t.Logf("with %d clients and no files left, accept failed %d times in 2 s", len(clients), failures)
	for _, c := range clients {
		c.Close()
	}
	begin := time.Now()
	s.dial(t, []byte("GET"))
	select {
	case <-s.taken:
		t.Logf("serves again %v after the files came back", time.Since(begin).Round(time.Millisecond))
	case <-time.After(10 * time.Second):
		t.Error("it does not serve any more")
	}
}

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
