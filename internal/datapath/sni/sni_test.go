package sni

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
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

// extension returns an extension of a ClientHello.
func extension(kind uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// names returns the extension server_name with a list of names, each of a type.
func names(list ...struct {
	kind byte
	name string
}) []byte {
	var b []byte
	for _, n := range list {
		b = append(b, n.kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(n.name)))
		b = append(b, n.name...)
	}
	return extension(serverNameExtension, append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
}

// name is names with one host name.
func name(s string) []byte {
	return names(struct {
		kind byte
		name string
	}{hostName, s})
}

// body returns the body of a ClientHello as browsers send it, with these extensions.
func body(extensions ...[]byte) []byte {
	b := append([]byte{3, 3}, make([]byte, 32)...) // TLS 1.2, random
	b = append(b, 32)
	b = append(b, make([]byte, 32)...)                                        // session ID
	b = append(b, 0, 8, 0x3a, 0x3a, 0x13, 0x01, 0x13, 0x02, 0xc0, 0x2b, 1, 0) // suites with GREASE (RFC 8701), compression
	all := bytes.Join(extensions, nil)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(all))), all...)
}

// inHello returns a ClientHello with this body, in one record if it fits.
func inHello(body []byte) []byte {
	m := append([]byte{clientHello, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
	return inRecords(append(make([]byte, recordHeader), m...), maxRecord)
}

var (
	grease     = extension(0x1a1a, nil)
	greaseLast = extension(0x8a8a, []byte{0})
	versions   = extension(43, []byte{6, 0x7a, 0x7a, 3, 4, 3, 3})
	// keyShares has a share of X25519MLKEM768, with 1216 bytes, behind one of GREASE.
	keyShares = extension(51, slices.Concat([]byte{0x04, 0xc9, 0xaa, 0xaa, 0, 1, 0, 0x11, 0xec, 0x04, 0xc0}, make([]byte, 1216)))
	// ech is an encrypted ClientHello: the name outside is what can be seen.
	ech = extension(0xfe0d, slices.Concat([]byte{0, 0, 1, 0, 1, 42, 0, 32}, make([]byte, 32), []byte{0, 200}, make([]byte, 200)))
)

func padding(n int) []byte { return extension(21, make([]byte, n)) }

// oddHellos are hellos as clients send them, and what is read in them: a name, or what
// the hint says.
func oddHellos(t testing.TB) []struct {
	name, want, hint string
	send             []byte
} {
	type entry = struct {
		kind byte
		name string
	}
	const host = "api.corp.example"
	browser := func(name []byte, more ...[]byte) []byte {
		return inHello(body(slices.Concat([][]byte{grease, versions, name, keyShares}, more, [][]byte{greaseLast})...))
	}
	// A name that needs more than one record.
	long := strings.Repeat("a", 20000)
	cut := func(b []byte, n int) []byte { return b[:len(b)-n] }
	noName := "no server name (SNI)"
	address := "an address as server name"
	notAHost := "is not a host name"
	invalid := "the ClientHello is invalid"
	return []struct {
		name, want, hint string
		send             []byte
	}{
		{"browser", host, "", browser(name(host))},
		{"crypto_tls", host, "", testkit.ClientHello(t, host)},
		{"trailing_dot", host, "", browser(name(host + "."))},
		{"upper_case", host, "", browser(name("API.Corp.EXAMPLE"))},
		{"upper_case_and_dot", host, "", browser(name("API.Corp.EXAMPLE."))},
		{"underscore", "_x.my_api.corp.example", "", browser(name("_x.my_api.corp.example"))},
		{"one_label", "api", "", browser(name("api"))},
		{"punycode", "xn--bcher-kva.example", "", browser(name("xn--bcher-kva.example"))},
		{"utf8", "bücher.example", "", browser(name("Bücher.example"))},
		{"ech_outer", "public.example", "", browser(name("public.example"), ech)},
		{"name_is_last", host, "", inHello(body(grease, keyShares, ech, name(host)))},
		{"of_4_KiB", host, "", browser(name(host), padding(2600))},
		{"of_16_KiB", host, "", browser(name(host), padding(14800))},
		{"of_16_KiB_before_the_name", host, "", inHello(body(padding(16000), name(host)))},
		{"of_30_KiB", host, "", browser(name(host), padding(28000))},
		{"with_another_name_type", host, "", browser(names(entry{7, "x"}, entry{hostName, host}))},
		{"longest_name", strings.Repeat("a.", 126) + "b", "", browser(name(strings.Repeat("a.", 126) + "b"))},

		{"no_extensions", "", noName, inHello(cut(body(), 2))},
		{"no_name", "", noName, browser(nil)},
		{"empty_extension", "", noName, browser(extension(serverNameExtension, nil))},
		{"empty_list", "", noName, browser(names())},
		{"empty_name", "", noName, browser(name(""))},
		{"only_another_name_type", "", noName, browser(names(entry{7, host}))},
		{"ipv4", "", address, browser(name("10.12.3.4"))},
		{"ipv4_and_dot", "", address, browser(name("10.12.3.4."))},
		{"ipv4_hex", "", address, browser(name("0xA0C0304"))},
		{"ipv6", "", address, browser(name("fd00::4"))},
		{"ipv6_in_brackets", "", address, browser(name("[fd00::4]"))},
		{"ipv6_with_zone", "", address, browser(name("fe80::4%eth0"))},
		{"number", "", address, browser(name("foo.1"))},
		{"dot", "", notAHost, browser(name("."))},
		{"two_dots", "", notAHost, browser(name("api.corp.example.."))},
		{"empty_label", "", notAHost, browser(name("api..example"))},
		{"with_port", "", notAHost, browser(name("api.corp.example:443"))},
		{"with_nul", "", notAHost, browser(name("api.corp.example\x00.evil.example"))},
		{"with_space", "", notAHost, browser(name("api corp"))},
		{"wildcard", "", notAHost, browser(name("*.corp.example"))},
		{"not_utf8", "", notAHost, browser(name("\xff\xfe.example"))},
		{"label_too_long", "", notAHost, browser(name(strings.Repeat("a", 64) + ".example"))},
		{"name_of_254", "", notAHost, browser(name(strings.Repeat("a.", 126) + "bc"))},
		{"name_of_20000", "", notAHost, browser(name(long))},
		{"name_of_65000", "", "longer than 32 KiB", browser(name(strings.Repeat("a", 65000-len(keyShares)-400)))},
		{"two_names", "", invalid, browser(names(entry{hostName, host}, entry{hostName, "other.example"}))},
		{"the_same_name_twice", "", invalid, browser(names(entry{hostName, host}, entry{hostName, host}))},
		{"two_extensions", "", invalid, browser(name(host), name("other.example"))},
		{"name_cut", "", invalid, browser(extension(serverNameExtension, []byte{0, 5, 0, 0, 9, 'a', 'b'}))},
		{"list_cut", "", invalid, browser(extension(serverNameExtension, []byte{0, 50, 0, 0, 2, 'a', 'b'}))},
		{"bytes_behind_the_list", "", invalid, browser(extension(serverNameExtension, []byte{0, 5, 0, 0, 2, 'a', 'b', 'c'}))},
		{"extension_cut", "", invalid, inHello(body(name(host), []byte{0, 99, 0, 9, 1}))},
		{"extensions_cut", "", invalid, inHello(cut(body(name(host)), 1))},
		{"bytes_behind_the_extensions", "", invalid, inHello(append(body(name(host)), 0))},
		{"ends_in_the_random", "", invalid, inHello(body()[:20])},
		{"ends_in_the_suites", "", invalid, inHello(body()[:70])},
		{"empty", "", invalid, inHello(nil)},
		{"record_too_long", "", invalid, append([]byte{22, 3, 1, 0x40, 0x01}, make([]byte, 20000)...)},
		{"http", "", "accepts TLS only", []byte("GET / HTTP/1.1\r\n\r\n")},
		{"ssl2", "", "accepts TLS only", []byte{0x80, 0x2e, 1, 3, 1, 0, 0x15}},
		{"alert", "", "accepts TLS only", []byte{21, 3, 1, 0, 2, 1, 0}},
		{"other_record_between", "", "accepts TLS only", slices.Concat(inRecords(browser(name(host)), 100)[:105], []byte{20, 3, 3, 0, 1, 1})},
		{"server_hello", "", "begin with a ClientHello", []byte{22, 3, 3, 0, 4, 2, 0, 0, 0}},
	}
}

// TestOddHellos checks hellos as programs send them, at once, byte by byte, and in
// records of all sizes.
func TestOddHellos(t *testing.T) {
	for _, c := range oddHellos(t) {
		t.Run(c.name, func(t *testing.T) {
			streams := map[string][]byte{"at_once": c.send}
			if c.want != "" && len(c.send) < maxRecord {
				for _, n := range []int{1, 3, 64, 1000} {
					if len(inRecords(c.send, n)) <= maxHello {
						streams[fmt.Sprint("records_of_", n)] = inRecords(c.send, n)
					}
				}
			}
			for how, send := range streams {
				send = append(bytes.Clone(send), "early"...)
				for piece, r := range map[string]io.Reader{"whole": bytes.NewReader(send), "bytewise": byByte{bytes.NewReader(send)}} {
					got, read, err := readHello(r)
					if c.want != "" {
						if rest, _ := io.ReadAll(r); err != nil || got != c.want || !bytes.Equal(append(read, rest...), send) {
							t.Errorf("%s, %s: readHello = %q, %v with %d bytes and %d more, want %q and all %d", how, piece, got, err, len(read), len(rest), c.want, len(send))
						}
						continue
					}
					if got != "" || flow.ClassOf(err) != flow.BadRequest || !strings.Contains(flow.HintOf(err), c.hint) {
						t.Errorf("%s, %s: readHello = %q, %v with hint %q; want class %v and a hint with %q", how, piece, got, err, flow.HintOf(err), flow.BadRequest, c.hint)
					}
					want := unexpectedMessage
					if strings.Contains(c.hint, "name") {
						want = unrecognizedName
					}
					if a := alertFor(err); a != want {
						t.Errorf("%s, %s: the alert is %d, want %d", how, piece, a, want)
					}
				}
			}
		})
	}
}

// TestHellosOfGo checks that hellos of crypto/tls are read, whatever groups and versions
// it offers.
func TestHellosOfGo(t *testing.T) {
	for _, config := range []*tls.Config{
		{},
		{CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}},
		{CurvePreferences: []tls.CurveID{tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}},
		{MaxVersion: tls.VersionTLS12},
		{NextProtos: []string{"h2", "http/1.1"}},
	} {
		config.ServerName = "api.corp.example"
		var b written
		tls.Client(&b, config).Handshake()
		got, read, err := readHello(bytes.NewReader(b.Bytes()))
		if err != nil || got != config.ServerName || !bytes.Equal(read, b.Bytes()) {
			t.Errorf("readHello of %+v = %q, %v; want %q", config, got, err, config.ServerName)
		}
	}
}

// written keeps what is written to it.
type written struct {
	net.Conn // nil: the client calls no other method
	bytes.Buffer
}

func (w *written) Write(b []byte) (int, error) { return w.Buffer.Write(b) }
func (w *written) Read([]byte) (int, error)    { return 0, io.EOF }
func (w *written) Close() error                { return nil }
func (w *written) CloseWrite() error           { return nil }

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
	for _, h := range oddHellos(f) {
		f.Add(h.send)
	}
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
