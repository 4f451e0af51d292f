package sni

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// inRecords cuts a hello into records of n bytes.
func inRecords(h []byte, n int) []byte {
	var out []byte
	for rest := h[5:]; len(rest) > 0; {
		part := rest[:min(n, len(rest))]
		out = append(out, 22, 3, 1, byte(len(part)>>8), byte(len(part)))
		out = append(out, part...)
		rest = rest[len(part):]
	}
	return out
}

func TestReadHello(t *testing.T) {
	good := testkit.ClientHello(t, "API.corp.example")
	for _, c := range []struct {
		name, want string
		send       []byte
		class      flow.Class
		alert      alert
	}{
		{"whole", "api.corp.example", good, flow.OK, 0},
		{"with_more_behind", "api.corp.example", append(bytes.Clone(good), "early"...), flow.OK, 0},
		{"records_of_100", "api.corp.example", inRecords(good, 100), flow.OK, 0},
		{"records_of_1", "api.corp.example", inRecords(good, 1), flow.OK, 0},
		{"no_name", "", testkit.ClientHello(t, ""), flow.BadRequest, unrecognizedName},
		{"cut_short", "", good[:len(good)-1], flow.Canceled, noAlert},
		{"nothing", "", nil, flow.Canceled, noAlert},
		{"not_tls", "", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), flow.BadRequest, unexpectedMessage},
		{"empty_records", "", bytes.Repeat([]byte{22, 3, 1, 0, 0}, 10000), flow.BadRequest, unexpectedMessage},
		{"endless", "", append([]byte{22, 3, 1, 64, 0, 1, 0, 255, 255}, make([]byte, 1<<20)...), flow.BadRequest, unexpectedMessage},
		{"not_a_hello", "", []byte{22, 3, 1, 0, 4, 2, 0, 0, 0}, flow.BadRequest, unexpectedMessage},
	} {
		t.Run(c.name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{"at_once": bytes.NewReader(c.send), "byte_by_byte": byByte{bytes.NewReader(c.send)}} {
				name, read, err := readHello(r)
				if name != c.want || flow.ClassOf(err) != c.class {
					t.Fatalf("readHello %s = %q, %v, want %q, class %s", how, name, err, c.want, c.class)
				}
				if err != nil {
					if a := alertFor(err); a != c.alert || flow.HintOf(err) == "" {
						t.Errorf("readHello %s: %v with hint %q and alert %d, want a hint and alert %d", how, err, flow.HintOf(err), a, c.alert)
					}
				} else if rest, _ := io.ReadAll(r); !bytes.Equal(append(read, rest...), c.send) {
					t.Errorf("readHello %s and the rest of the stream differ from what was sent", how)
				}
			}
		})
	}
}

// TestServerNameIsNoAddress checks that sni and the other fronts agree on
// what an address is: package host decides for all of them.
func TestServerNameIsNoAddress(t *testing.T) {
	for name, want := range map[string]alert{
		"10.0.0.1": unrecognizedName, "fd00::1": unrecognizedName, "1": unrecognizedName, "a.0x7f": unrecognizedName, "127.1": unrecognizedName,
		"api.corp.example": 0, "a1": 0, "x0": 0, "1.a": 0, "a.0xzz": 0,
	} {
		got, _, err := readHello(bytes.NewReader(testkit.ClientHello(t, name)))
		if want == 0 && (err != nil || got != name) {
			t.Errorf("readHello with server name %q = %q, %v, want the name", name, got, err)
		}
		if want != 0 && (err == nil || alertFor(err) != want) {
			t.Errorf("readHello with server name %q = %q, %v, want alert %d", name, got, err, want)
		}
	}
}

// byByte reads one byte at a time.
type byByte struct{ io.Reader }

func (r byByte) Read(b []byte) (int, error) { return r.Reader.Read(b[:min(1, len(b))]) }

func TestAlertFor(t *testing.T) {
	alerts := map[flow.Class]alert{
		flow.OK: noAlert, flow.Internal: internalError, flow.BadRequest: unexpectedMessage, flow.Unauthenticated: accessDenied,
		flow.Denied: accessDenied, flow.NotFound: unrecognizedName, flow.ResolveFailed: internalError, flow.NoRoute: unrecognizedName,
		flow.Refused: internalError, flow.Unreachable: internalError, flow.Timeout: internalError, flow.Reset: internalError,
		flow.BadResponse: internalError, flow.BadCertificate: internalError, flow.Idle: internalError, flow.Overloaded: userCanceled, flow.NotReady: userCanceled,
		flow.Cut: userCanceled, flow.Canceled: noAlert, flow.Loop: accessDenied,
	}
	for _, class := range flow.Classes() {
		want, ok := alerts[class]
		if !ok {
			t.Fatalf("class %s has no alert in this test: add one", class)
		}
		if got := alertFor(fmt.Errorf("road: %w", &flow.Error{Class: class})); got != want {
			t.Errorf("%s: got %d, want %d", class, got, want)
		}
	}
}

// road denies every flow.
type road struct{ ended chan *flow.Record }

func (r road) Connect(context.Context, *flow.Record) (net.Conn, error) {
	return nil, &flow.Error{Class: flow.Denied, Op: "policy"}
}
func (r road) Tunnel(*flow.Record, flow.Pair) { panic("Tunnel of a denied flow") }
func (r road) Finish(rec *flow.Record)        { r.ended <- rec }

// TestAlerts checks what a TLS client sees when it gets no tunnel.
func TestAlerts(t *testing.T) {
	r := road{make(chan *flow.Record, 1)}
	for _, c := range []struct {
		name, alert string
		class       flow.Class
		timeout     time.Duration // 0 means the default
		client      func(*net.TCPConn) error
	}{
		{"denied", "access denied", flow.Denied, 0, func(c *net.TCPConn) error {
			return tls.Client(c, &tls.Config{ServerName: "api.corp.example"}).Handshake()
		}},
		{"no_name", "unrecognized name", flow.BadRequest, 0, func(c *net.TCPConn) error { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake() }},
		{"says_nothing", "internal error", flow.Timeout, 100 * time.Millisecond, func(c *net.TCPConn) error {
			c.Write(testkit.ClientHello(t, "api.corp.example")[:50])
			return tls.Client(silent{c}, &tls.Config{InsecureSkipVerify: true}).Handshake()
		}},
		{"leaves_half_way", "", flow.Canceled, 0, func(c *net.TCPConn) error {
			c.Write(testkit.ClientHello(t, "api.corp.example")[:50])
			c.CloseWrite()
			_, err := c.Read(make([]byte, 1))
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, conn := testkit.TCPPair(t)
			s := &Server{Road: r, Port: 443, Timeout: c.timeout}
			done := make(chan bool, 1)
			go func() { done <- s.Serve(t.Context(), conn) }()
			err := c.client(client)
			if c.alert == "" && !errors.Is(err, io.EOF) || !strings.Contains(fmt.Sprint(err), c.alert) {
				t.Errorf("the client got %v, want alert %q", err, c.alert)
			}
			if rec := <-r.ended; flow.ClassOf(rec.Err) != c.class || rec.Front != flow.SNI {
				t.Errorf("record of front %s with error %v, want sni, class %s", rec.Front, rec.Err, c.class)
			}
			if <-done {
				t.Error("Serve = true, want false: there is no tunnel")
			}
		})
	}
}

// TestEndsInTheHello checks that a client with half a hello does not delay the end.
func TestEndsInTheHello(t *testing.T) {
	client, conn := testkit.TCPPair(t)
	client.Write(testkit.ClientHello(t, "api.corp.example")[:50])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := road{make(chan *flow.Record, 1)}
	start := time.Now()
	(&Server{Road: r, Port: 443, Timeout: time.Minute}).Serve(ctx, conn)
	if took := time.Since(start); took > 10*time.Second || (<-r.ended).Err == nil {
		t.Errorf("Serve ended after %v, want 10s at most, with an error", took)
	}
}

// silent is a connection that discards writes.
type silent struct{ net.Conn }

func (c silent) Write(b []byte) (int, error) { return len(b), nil }
func (c silent) CloseWrite() error           { return nil }

// FuzzReadHello checks that no byte is lost, and that it makes no difference in how
// many pieces a hello arrives.
func FuzzReadHello(f *testing.F) {
	good := testkit.ClientHello(f, "api.corp.example")
	f.Add(good)
	f.Add(inRecords(good, 7))
	f.Add(testkit.ClientHello(f, ""))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		name, read, err := readHello(r)
		rest, _ := io.ReadAll(r)
		switch {
		case (name == "") != (err != nil):
			t.Fatalf("readHello = %q, %v, want a name or an error", name, err)
		case err == nil && !bytes.Equal(append(read, rest...), b):
			t.Fatal("readHello and the rest of the stream differ from the input")
		case err != nil && flow.ClassOf(err) != flow.BadRequest && flow.ClassOf(err) != flow.Canceled:
			t.Fatalf("readHello: %v, want class bad_request or canceled", err)
		}
		again, _, err2 := readHello(byByte{bytes.NewReader(b)})
		if again != name || flow.ClassOf(err2) != flow.ClassOf(err) {
			t.Fatalf("readHello byte by byte = %q, %v, at once = %q, %v, want the same", again, err2, name, err)
		}
	})
}
