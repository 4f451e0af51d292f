// Package testkit holds what tests of several packages share: waiting with a
// bound, a buffer for several goroutines, a TCP connection and a server over
// loopback, a road for fronts, a ClientHello, and the commands of the
// documentation.
package testkit

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// eventuallyTime is how long Eventually and the client of a TCPPair wait. A
// condition that holds costs only the time until it holds, so the bound is
// generous: it is there for a condition that never holds, and must not be what a
// busy machine runs into.
const eventuallyTime = 30 * time.Second

// Within returns a context that ends after d, or with the test.
func Within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// Eventually waits until f reports true, and fails the test if that takes too
// long. what completes the sentence "waited too long for …".
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	EventuallyOr(eventuallyTime, f, func() { t.Fatalf("waited longer than %v for %s", eventuallyTime, what) })
}

// EventuallyOr waits until f reports true, and calls or if that takes longer
// than d.
func EventuallyOr(d time.Duration, f func() bool, or func()) {
	deadline := time.Now().Add(d)
	for !f() {
		if time.Now().After(deadline) {
			or()
			return
		}
		time.Sleep(5 * time.Millisecond) // f has no event
	}
}

// TCPPair returns the two ends of a TCP connection over loopback. They are closed
// with the test. The client's end has a deadline, so a test that hangs fails.
// The server's end has none: it is the end of the code under test.
func TCPPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	client.SetDeadline(time.Now().Add(eventuallyTime))
	return client, server
}

// ClientHello returns the ClientHello that crypto/tls sends to a server called
// name. An empty name sends none. crypto/tls sends no addresses, so any name is put
// in afterwards.
func ClientHello(t testing.TB, name string) []byte {
	t.Helper()
	placeholder := strings.Repeat("x", len(name))
	c := &firstWrite{}
	tls.Client(c, &tls.Config{ServerName: placeholder, InsecureSkipVerify: true}).Handshake()
	if c.Len() == 0 {
		t.Fatal("crypto/tls has written no hello")
	}
	if name == "" {
		return c.Bytes()
	}
	length := string([]byte{0, 0, byte(len(name))}) // the type and the length stand before the name
	return bytes.Replace(c.Bytes(), []byte(length+placeholder), []byte(length+name), 1)
}

// firstWrite keeps what is written, and has nothing to read.
type firstWrite struct {
	net.Conn
	bytes.Buffer
}

func (c *firstWrite) Read([]byte) (int, error)    { return 0, io.EOF }
func (c *firstWrite) Write(b []byte) (int, error) { return c.Buffer.Write(b) }
func (c *firstWrite) Close() error                { return nil }
func (c *firstWrite) CloseWrite() error           { return nil }

// Buffer is a bytes.Buffer for several goroutines. The zero value is empty.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
