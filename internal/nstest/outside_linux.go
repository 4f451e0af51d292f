package nstest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is the user and group of AsNobody.
const nobody = 65534

// Outside reports whether the test runs outside the namespace. Inside, it has
// the test run outside, as root with all its capabilities, reports how that
// went and returns false: the test must return then. Without root, it returns
// true: the test runs where it was started, and has to look at its rights.
func Outside(t *testing.T) bool {
	t.Helper()
	return runsAs(t, stageRoot)
}

// AsNobody is Outside, but the test runs as a user that has no right at all.
// Without root, it returns true: whoever runs the test has no right.
func AsNobody(t *testing.T) bool {
	t.Helper()
	return runsAs(t, stageNobody)
}

func runsAs(t *testing.T, stage string) bool {
	t.Helper()
	if !InNamespace() {
		return true
	}
	c, err := net.Dial("unix", os.Getenv(envOutside))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	left := 5 * time.Minute
	if d, ok := t.Deadline(); ok {
		left = time.Until(d) - 5*time.Second
	}
	fmt.Fprintf(c, "%s %v %s\n", stage, left.Round(time.Millisecond), t.Name())
	out, err := io.ReadAll(c)
	t.Logf("outside the namespace, as %s:\n%s", stage, out)
	switch {
	case err != nil:
		t.Fatal(err)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()+" "):
		t.SkipNow() // the log above has the reason
	case !strings.Contains(string(out), "--- PASS: "+t.Name()+" "):
		t.Fatalf("the test failed outside the namespace, as %s", stage)
	}
	return false
}

// serveOutside runs the tests that the process inside asks for.
func serveOutside(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go runOutside(c)
	}
}

// runOutside reads an order of runsAs from c, and writes there what the test
// prints. The test ends with c.
func runOutside(c net.Conn) {
	defer c.Close()
	order := bufio.NewReader(c)
	var stage, left, name string
	if _, err := fmt.Fscanln(order, &stage, &left, &name); err != nil {
		fmt.Fprintf(c, "nstest: bad order: %v\n", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		io.Copy(io.Discard, order)
		cancel()
	}()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run="+exactly(name), "-test.v", "-test.timeout="+left)
	cmd.Env = append(os.Environ(), envStage+"="+stage)
	cmd.Stdout = c
	cmd.Stderr = c
	if stage == stageNobody {
		cmd.Dir = "/" // it may not read where the tests are
		cmd.Env = append(cmd.Env, "PWD=/", "HOME=/")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(c, "nstest: %v\n", err)
	}
}

// exactly is the pattern of -test.run for the test called name alone.
func exactly(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}
