package gateway_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestHellos(t *testing.T) { eachMode(t, sharedTailnet, oddHellos) }

// oddHellos checks ClientHellos of odd forms on a port of sni: the target gets them
// unchanged, and whole handshakes go through.
func oddHellos(t *testing.T, w *world) {
	whole := make(chan []byte, 1) // all that the target got
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		b, _ := io.ReadAll(c)
		whole <- b
	}))
	_, number, err := net.SplitHostPort(target)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	free := testkit.FreePorts(t, 2)
	r := w.start(t, func(c *config.Config) { c.SNI = []config.FrontPort{{Listen: free[0]}, {Listen: free[1], Port: port}} })
	splitHandshakes(t, w, free[0])
	for _, c := range []struct {
		name string
		send []byte
	}{
		{"trailing_dot", testkit.ClientHello(t, testnet.APIName+".")},
		{"upper_case", testkit.ClientHello(t, strings.ToUpper(testnet.APIName))},
		{"padded_to_16_KiB", padded(testkit.ClientHello(t, testnet.APIName), 14<<10)},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dialPort(t, free[1])
			conn.SetNoDelay(true)
			for part := range chunks(c.send, 700) { // many packets
				conn.Write(part)
			}
			conn.CloseWrite()
			if got := <-whole; !bytes.Equal(got, c.send) {
				t.Errorf("the target got %d bytes, want all %d as they were sent", len(got), len(c.send))
			}
		})
	}
	for name, hint := range map[string]string{
		"10.12.3.4":              "an address as server name",
		"[" + testnet.Zone + "]": "not a host name",
		"":                       "no server name",
	} {
		conn := dialPort(t, free[0])
		conn.Write(testkit.ClientHello(t, name))
		expect(t, conn, []byte{21, 3, 3, 0, 2, 2, 112}) // unrecognized_name
		r.flows.says(t, hint)
	}
}

// chunks cuts b into parts of n bytes.
func chunks(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			part := b[:min(n, len(b))]
			b = b[len(part):]
			if !yield(part) {
				return
			}
		}
	}
}

// padded returns a hello, in one record, with an extension of n more bytes (RFC 7685).
func padded(hello []byte, n int) []byte {
	b := bytes.Clone(hello)
	b = append(b, 0, 21, byte(n>>8), byte(n))
	b = append(b, make([]byte, n)...)
	more := n + 4
	grow := func(at int) { binary.BigEndian.PutUint16(b[at:], binary.BigEndian.Uint16(b[at:])+uint16(more)) }
	grow(3)                                        // the record
	grow(7)                                        // the message: the length has three bytes, and the first is 0
	at := 5 + 4 + 2 + 32                           // the session ID
	at += 1 + int(b[at])                           // the suites
	at += 2 + int(binary.BigEndian.Uint16(b[at:])) // the compression
	at += 1 + int(b[at])
	grow(at)
	return b
}

// splitHandshakes checks whole handshakes, with the certificate verified, whose hello
// comes in records and packets of few bytes.
func splitHandshakes(t *testing.T, w *world, addr string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.cloud.CA)
	for _, size := range []int{1, 100, 1000} {
		for _, groups := range [][]tls.CurveID{nil, {tls.X25519}, {tls.X25519MLKEM768}} {
			conn := dialPort(t, addr)
			conn.SetNoDelay(true)
			c := tls.Client(&splitter{TCPConn: conn, size: size}, &tls.Config{
				ServerName:       testnet.APIName,
				RootCAs:          roots,
				CurvePreferences: groups,
			})
			if err := c.Handshake(); err != nil {
				t.Errorf("records of %d bytes, groups %v: %v", size, groups, err)
			}
			c.Close()
		}
	}
}

// splitter cuts the first record that is written into records of some size, each in a
// packet.
type splitter struct {
	*net.TCPConn
	size int
	done bool
}

func (s *splitter) Write(b []byte) (int, error) {
	if s.done {
		return s.TCPConn.Write(b)
	}
	s.done = true
	if len(b) < 5 || len(b) != 5+int(binary.BigEndian.Uint16(b[3:])) {
		return 0, errors.New("the first write is not one record")
	}
	for part := range chunks(b[5:], s.size) {
		record := append([]byte{b[0], b[1], b[2], byte(len(part) >> 8), byte(len(part))}, part...)
		if _, err := s.TCPConn.Write(record); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
