package socks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// connect4 returns a request of version 4, or of 4A if it has a name.
func connect4(addr string, port uint16, user, name string) []byte {
	b := append([]byte{4, 1, byte(port >> 8), byte(port)}, netip.MustParseAddr(addr).AsSlice()...)
	b = append(append(b, user...), 0)
	if name != "" {
		b = append(append(b, name...), 0)
	}
	return b
}

// TestServe4 checks what comes back for what a client of version 4 or 4A sends, byte by
// byte and all at once.
func TestServe4(t *testing.T) {
	users := func(netip.Addr, string, string) error {
		t.Error("the password of a client of SOCKS4 is checked")
		return nil
	}
	var (
		yes  = []byte{0, 90, 0, 0, 0, 0, 0, 0}
		no   = []byte{0, 91, 0, 0, 0, 0, 0, 0}
		who  = []byte{0, 93, 0, 0, 0, 0, 0, 0}
		name = connect4("0.0.0.1", 443, "", "api.corp.example")
		long = strings.Repeat("x", 255)
	)
	bind := connect4("192.0.2.1", 443, "ann", "")
	bind[1] = 2
	associate := connect4("0.0.0.0", 0, "", "")
	associate[1] = 3
	for _, c := range []struct {
		name  string
		users func(client netip.Addr, user, pass string) error
		err   error // what the road's Connect returns
		send  []byte
		want  []byte // all that comes back
		class flow.Class
		rec   flow.Request // in the record, without Front and Client
		all   string       // what the tunnel gets from the client
	}{
		{name: "address", send: connect4("192.0.2.1", 443, "", ""), want: yes, rec: flow.Request{Host: "192.0.2.1", Port: 443}},
		{name: "user_id", send: connect4("192.0.2.1", 443, "ann", ""), want: yes, rec: flow.Request{Host: "192.0.2.1", Port: 443}},
		{name: "name", send: name, want: yes, rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "name_and_user_id", send: connect4("0.0.0.255", 443, "ann", "api.corp.example"), want: yes, rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "longest", send: connect4("0.0.0.1", 65535, long, long), want: yes, rec: flow.Request{Host: long, Port: 65535}},
		{name: "address_as_name", send: connect4("0.0.0.1", 443, "", "0x7f.1"), want: yes, rec: flow.Request{Host: "0x7f.1", Port: 443}},
		{name: "ipv6_as_name", send: connect4("0.0.0.1", 443, "", "2001:db8::1"), want: yes, rec: flow.Request{Host: "2001:db8::1", Port: 443}},
		{name: "ipv6_in_brackets", send: connect4("0.0.0.1", 443, "", "[2001:db8::1]"), want: yes, rec: flow.Request{Host: "2001:db8::1", Port: 443}},
		{name: "unspecified", send: connect4("0.0.0.0", 443, "", ""), want: yes, rec: flow.Request{Host: "0.0.0.0", Port: 443}}, // the policy refuses it
		{name: "like_4a", send: connect4("0.0.1.1", 443, "", ""), want: yes, rec: flow.Request{Host: "0.0.1.1", Port: 443}},
		{name: "early_bytes", send: join(name, []byte("hello\x00")), want: yes, rec: flow.Request{Host: "api.corp.example", Port: 443}, all: "hello\x00"},
		{name: "road_fails", err: &flow.Error{Class: flow.Refused}, send: name, want: no, class: flow.Refused, rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "denied", err: &flow.Error{Class: flow.Denied}, send: name, want: no, class: flow.Denied, rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "users", users: users, send: name, want: who, class: flow.Unauthenticated, rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "bind", send: bind, want: no, class: flow.BadRequest, rec: flow.Request{Host: "192.0.2.1", Port: 443}},
		{name: "bind_with_users", users: users, send: bind, want: no, class: flow.BadRequest, rec: flow.Request{Host: "192.0.2.1", Port: 443}},
		{name: "other_command", send: associate, want: no, class: flow.BadRequest, rec: flow.Request{Host: "0.0.0.0"}},
		{name: "port_0", send: connect4("192.0.2.1", 0, "", ""), want: no, class: flow.BadRequest, rec: flow.Request{Host: "192.0.2.1"}},
		{name: "empty_name", send: []byte{4, 1, 1, 187, 0, 0, 0, 1, 0, 0}, want: no, class: flow.BadRequest, rec: flow.Request{Port: 443}},
		{name: "user_id_too_long", send: connect4("192.0.2.1", 443, long+"x", ""), want: no, class: flow.BadRequest},
		{name: "user_id_endless", send: connect4("192.0.2.1", 443, strings.Repeat("x", 5000), ""), want: no, class: flow.BadRequest},
		{name: "name_too_long", send: connect4("0.0.0.1", 443, "", long+"x"), want: no, class: flow.BadRequest},
		{name: "name_endless", send: connect4("0.0.0.1", 443, "", strings.Repeat("x", 5000)), want: no, class: flow.BadRequest},
		{name: "socks5", send: []byte{5, 1, 0}, want: no, class: flow.BadRequest},
		{name: "truncated_nothing", class: flow.Canceled},
		{name: "truncated_head", send: name[:5], class: flow.Canceled},
		{name: "truncated_user_id", send: connect4("192.0.2.1", 443, "ann", "")[:11], class: flow.Canceled},
		{name: "truncated_name", send: name[:len(name)-1], class: flow.Canceled},
	} {
		for _, piece := range []int{1, 1 << 20} { // byte by byte, and all at once
			t.Run(c.name+map[int]string{1: "_bytewise"}[piece], func(t *testing.T) {
				client, server := testkit.TCPPair(t)
				_, target := testkit.TCPPair(t)
				r := &road{err: c.err, target: target}
				done := serve(t, &Server{Road: r, Authenticate: c.users, Version4: true}, server)
				for part := range slices.Chunk(c.send, piece) {
					if _, err := client.Write(part); err != nil {
						break // the server has seen enough of an endless one
					}
				}
				client.CloseWrite()
				got, err := io.ReadAll(client)
				if err != nil || !bytes.Equal(got, c.want) {
					t.Errorf("the client reads %v, %v; want %v", got, err, c.want)
				}
				<-done
				if len(r.finished) != 1 {
					t.Fatalf("%d records are finished, want 1", len(r.finished))
				}
				rec := r.finished[0]
				c.rec.Front = flow.SOCKS4
				c.rec.Client = client.LocalAddr().(*net.TCPAddr).AddrPort()
				if class := flow.ClassOf(rec.Err); class != c.class || rec.Request != c.rec {
					t.Errorf("record of class %v, request %+v; want %v, %+v", class, rec.Request, c.class, c.rec)
				}
				if string(r.all) != c.all {
					t.Errorf("the tunnel got %q, want %q", r.all, c.all)
				}
			})
		}
	}
}

// TestTimeout4 checks what a client of version 4 gets that is too slow, and one that is
// refused at once.
func TestTimeout4(t *testing.T) {
	want := []byte{0, 91, 0, 0, 0, 0, 0, 0}
	client, server := testkit.TCPPair(t)
	client.Write([]byte{4, 1, 0})
	r := &road{}
	done := serve(t, &Server{Road: r, Timeout: 30 * time.Millisecond, Version4: true}, server)
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the client reads %v, %v; want %v", got, err, want)
	}
	client.Close()
	<-done
	if len(r.finished) != 1 || flow.ClassOf(r.finished[0].Err) != flow.Timeout {
		t.Errorf("finished records %+v, want one of class %v", r.finished, flow.Timeout)
	}

	client, server = testkit.TCPPair(t)
	client.Write(connect4("192.0.2.1", 443, "", ""))
	client.CloseWrite()
	(&Server{Road: r, Version4: true}).Refuse(server, &flow.Error{Class: flow.Overloaded})
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a refused client reads %v, %v; want %v", got, err, want)
	}
}

// TestReplyFor4 checks the reply for each class, and that docs/troubleshooting.md has
// them.
func TestReplyFor4(t *testing.T) {
	page, err := os.ReadFile("../../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range flow.Classes() {
		want := rejected
		switch class {
		case flow.OK:
			want = granted
		case flow.Unauthenticated:
			want = wrongUserID4
		case flow.Canceled:
			want = noReply4
		}
		got := replyFor4(fmt.Errorf("road: %w", &flow.Error{Class: class}))
		if got != want {
			t.Errorf("replyFor4 an error of class %v = %d, want %d", class, got, want)
		}
		text := "none"
		if got != noReply4 {
			text = strconv.Itoa(int(got))
		}
		row := regexp.MustCompile("(?m)^\\| `" + class.String() + "`[^|]*\\|[^|]*\\|[^|]*\\| " + text + " ")
		if !row.Match(page) {
			t.Errorf("docs/troubleshooting.md lacks a row of %v with the SOCKS4 reply %q", class, text)
		}
	}
	if got := replyFor4(nil); got != granted {
		t.Errorf("replyFor4(nil) = %d, want %d", got, granted)
	}
	if got := replyFor4(errors.New("broken")); got != rejected {
		t.Errorf("replyFor4 of an unknown error = %d, want %d", got, rejected)
	}
}

// TestParse4 checks that the parser takes its message and leaves what follows.
func TestParse4(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want any // nil means an error
	}{
		{"address", connect4("192.0.2.1", 443, "", ""), request{commandConnect, "192.0.2.1", 443}},
		{"user_id", connect4("192.0.2.1", 443, "ann", ""), request{commandConnect, "192.0.2.1", 443}},
		{"name", connect4("0.0.0.1", 443, "ann", "api.corp.example"), request{commandConnect, "api.corp.example", 443}},
		{"bind", append([]byte{4, 2}, connect4("192.0.2.1", 443, "", "")[2:]...), request{2, "192.0.2.1", 443}},
		{"version", append([]byte{5}, connect4("192.0.2.1", 443, "", "")[1:]...), nil},
		{"long_user_id", connect4("192.0.2.1", 443, strings.Repeat("x", 256), ""), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, n, err := req4(append(c.in[:len(c.in):len(c.in)], "tail"...))
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
