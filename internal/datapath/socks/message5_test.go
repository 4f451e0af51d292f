package socks

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

var (
	connectIPv4 = []byte{5, 1, 0, 1, 192, 0, 2, 1, 0x01, 0xbb}
	connectIPv6 = []byte{5, 1, 0, 4, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x01, 0xbb}
)

func connectName(host string, port uint16) []byte {
	b := append([]byte{5, 1, 0, 3, byte(len(host))}, host...)
	return append(b, byte(port>>8), byte(port))
}

func password(user, pass string) []byte {
	b := append([]byte{1, byte(len(user))}, user...)
	return append(append(b, byte(len(pass))), pass...)
}

// TestReplyFor checks the reply for each class, as clients see it.
func TestReplyFor(t *testing.T) {
	replies := map[flow.Class]replyCode{
		flow.OK:              succeeded,
		flow.Internal:        generalFailure,
		flow.BadRequest:      generalFailure,
		flow.Unauthenticated: noReply,
		flow.Denied:          notAllowed,
		flow.NotFound:        hostUnreachable,
		flow.ResolveFailed:   hostUnreachable,
		flow.NoRoute:         networkUnreachable,
		flow.Refused:         connectionRefused,
		flow.Unreachable:     hostUnreachable,
		flow.Timeout:         ttlExpired,
		flow.Reset:           generalFailure,
		flow.BadResponse:     generalFailure,
		flow.BadCertificate:  generalFailure,
		flow.Idle:            generalFailure,
		flow.Overloaded:      generalFailure,
		flow.NotReady:        generalFailure,
		flow.Cut:             generalFailure,
		flow.Canceled:        noReply,
		flow.Loop:            generalFailure,
	}
	for _, class := range flow.Classes() {
		t.Run(class.String(), func(t *testing.T) {
			want, ok := replies[class]
			if !ok {
				t.Fatalf("class %v has no reply in this table; choose one", class)
			}
			if got := replyFor(fmt.Errorf("road: %w", &flow.Error{Class: class})); got != want {
				t.Errorf("replyFor an error of class %v = %d, want %d", class, got, want)
			}
		})
	}
	for _, c := range []struct {
		name string
		err  error
		want replyCode
	}{
		{"nil", nil, succeeded},
		{"unknown_kind", errors.New("broken"), generalFailure},
		{"a_reply_beats_its_class", unsupported(commandNotSupported), commandNotSupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := replyFor(c.err); got != c.want {
				t.Errorf("replyFor(%v) = %d, want %d", c.err, got, c.want)
			}
		})
	}
}

// TestParse checks that a parser takes its message and leaves what follows.
func TestParse(t *testing.T) {
	long := strings.Repeat("n", 255)
	for _, c := range []struct {
		name  string
		parse func([]byte) (any, int, error)
		in    []byte
		want  any // nil means an error
	}{
		{"greeting", greeting, []byte{5, 2, 0, 2}, []byte{0, 2}},
		{"greeting_without_methods", greeting, []byte{5, 0}, []byte(nil)},
		{"greeting_of_socks4", greeting, []byte{4, 1, 0, 80}, nil},
		{"credentials", creds, password("ann", "a:b"), credentials{"ann", "a:b"}},
		{"credentials_empty", creds, password("", ""), credentials{}},
		{"credentials_longest", creds, password(long, long), credentials{long, long}},
		{"credentials_version", creds, []byte{5, 1, 'a', 1, 'b'}, nil},
		{"request_ipv4", req, connectIPv4, request{commandConnect, "192.0.2.1", 443}},
		{"request_ipv6", req, connectIPv6, request{commandConnect, "2001:db8::1", 443}},
		{"request_name", req, connectName("api.corp.example", 8080), request{commandConnect, "api.corp.example", 8080}},
		{"request_longest_name", req, connectName(long, 65535), request{commandConnect, long, 65535}},
		{"request_ipv4_mapped", req, []byte{5, 1, 0, 4, 14: 0xff, 15: 0xff, 16: 192, 18: 2, 19: 1, 21: 80}, request{commandConnect, "192.0.2.1", 80}},
		{"request_other_command", req, append([]byte{5, 3}, connectIPv4[2:]...), request{3, "192.0.2.1", 443}},
		{"request_port_0", req, connectName("a", 0), request{commandConnect, "a", 0}},
		{"request_version", req, append([]byte{4}, connectIPv4[1:]...), nil},
		{"request_empty_name", req, connectName("", 80), request{commandConnect, "", 80}},
		{"request_ipv6_in_brackets", req, connectName("[2001:db8::1]", 80), request{commandConnect, "2001:db8::1", 80}},
		{"request_ipv4_in_brackets", req, connectName("[192.0.2.1]", 80), request{commandConnect, "[192.0.2.1]", 80}},
		{"request_address_type", req, []byte{5, 1, 0, 2, 0, 0, 80}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := append(c.in[:len(c.in):len(c.in)], "tail"...)
			got, n, err := c.parse(in)
			if c.want == nil {
				if err == nil || n != 0 || flow.ClassOf(err) != flow.BadRequest {
					t.Fatalf("parsed %v, %d, %v; want an error of class %v", got, n, err, flow.BadRequest)
				}
				return
			}
			if err != nil || n != len(c.in) || !reflect.DeepEqual(got, c.want) {
				t.Fatalf("parsed %v, %d, %v; want %v, %d, nil", got, n, err, c.want, len(c.in))
			}
		})
	}
}

// FuzzParse checks what the reader relies on: however the network splits a
// message, the parsers ask for more until it is whole, and then return the same
// as for the whole.
func FuzzParse(f *testing.F) {
	for _, b := range [][]byte{
		{5, 1, 0}, {5, 2, 0, 2}, {5, 0}, {4, 1, 0, 80, 192, 0, 2, 1, 0},
		password("ann", "secret"), password("", ""),
		connectIPv4, connectIPv6, connectName("api.corp.example", 443), connectName("", 443),
		{5, 2, 0, 1, 0, 0, 0, 0, 0, 21}, {5, 1, 0, 2, 0, 0, 80},
		append(append([]byte{5, 1, 0}, connectIPv4...), "GET / HTTP/1.1\r\n"...),
		[]byte("GET / HTTP/1.1\r\n"),
		connect4("192.0.2.1", 80, "ann", ""), connect4("0.0.0.9", 80, "", "api.corp.example"), connect4("0.0.0.0", 80, "", ""),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1100 { // longer than any handshake
			b = b[:1100]
		}
		piecewise(t, "greeting", greeting, b)
		piecewise(t, "credentials", creds, b)
		piecewise(t, "request", req, b)
		piecewise(t, "request of version 4", req4, b)
	})
}

// piecewise parses each beginning of b and compares with the whole.
func piecewise(t *testing.T, name string, parse func([]byte) (any, int, error), b []byte) {
	whole, n, err := parse(b)
	if n < 0 || n > len(b) || err != nil && n != 0 {
		t.Fatalf("%s: took %d of %d bytes with error %v", name, n, len(b), err)
	}
	if err != nil && flow.ClassOf(err) != flow.BadRequest {
		t.Fatalf("%s: error %v of class %v, want %v", name, err, flow.ClassOf(err), flow.BadRequest)
	}
	for i := range b {
		part := append([]byte(nil), b[:i]...)
		got, m, perr := parse(part)
		switch {
		case n > 0 && i >= n: // the message is complete
			clear(part) // the result must not refer to it
			if m != n || perr != nil || !reflect.DeepEqual(got, whole) {
				t.Fatalf("%s: %d bytes of %q parse as %v, %d, %v; want %v, %d, nil as for the whole", name, i, b, got, m, perr, whole, n)
			}
		case m != 0, err == nil && perr != nil:
			t.Fatalf("%s: %d bytes of %q parse as %v, %d, %v; want that more is needed (the whole: %v, %d, %v)", name, i, b, got, m, perr, whole, n, err)
		}
	}
}

func greeting(b []byte) (any, int, error) { return erase(parseGreeting(b)) }
func creds(b []byte) (any, int, error)    { return erase(parseCredentials(b)) }
func req(b []byte) (any, int, error)      { return erase(parseRequest(b)) }

func req4(b []byte) (any, int, error) { return erase(parseRequest4(b)) }

func erase[T any](v T, n int, err error) (any, int, error) { return v, n, err }

// TestReplyIsDocumented checks the column SOCKS5 of the table of classes in
// docs/troubleshooting.md.
func TestReplyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range flow.Classes() {
		err := &flow.Error{Class: class}
		reply := strconv.Itoa(int(replyFor(err)))
		if replyFor(err) == noReply {
			reply = "none"
		}
		row := regexp.MustCompile("(?m)^\\| `" + class.String() + "`[^|]*\\|[^|]*\\| " + reply + "[ ,]")
		if !row.Match(page) {
			t.Errorf("docs/troubleshooting.md lacks a row of %v with the SOCKS5 reply %q", class, reply)
		}
	}
}
