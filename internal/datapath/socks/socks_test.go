package socks

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// road is what lies behind the front. It dials nothing, and its tunnels
// read the rest of what the client sends.
type road struct {
	err      error    // what Connect returns
	target   net.Conn // what Connect returns
	all      []byte   // what the tunnel got from the client, early bytes first
	finished []*flow.Record
}

func (r *road) Connect(context.Context, *flow.Record) (net.Conn, error) { return r.target, r.err }

func (r *road) Tunnel(rec *flow.Record, p flow.Pair) {
	rest, err := io.ReadAll(p.Client)
	rec.Err = err
	r.all = slices.Concat(p.ClientEarly, rest)
	p.Client.Close()
	r.Finish(rec)
}

func (r *road) Finish(rec *flow.Record) { r.finished = append(r.finished, rec) }

// serve runs s on c, and returns a channel that is closed when Serve returns.
func serve(t *testing.T, s *Server, c *net.TCPConn) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(t.Context(), c)
	}()
	return done
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// answer returns a reply as the client reads it.
func answer(r replyCode) []byte { return []byte{5, byte(r), 0, 1, 0, 0, 0, 0, 0, 0} }

// TestServe checks what comes back for what a client sends, byte by byte and
// all at once.
func TestServe(t *testing.T) {
	var (
		long     = strings.Repeat("x", 255)
		none     = []byte{5, 1, 0}
		userpass = []byte{5, 1, 2}
		name     = connectName("api.corp.example", 443)
		fill     = append([]byte{5, 255}, bytes.Repeat([]byte{2}, 255)...)
	)
	users := func(_ netip.Addr, user, pass string) error {
		switch {
		case user == "ann" && pass == "secret" || user == long && pass == long:
			return nil
		case user == "eve":
			return &flow.Error{Class: flow.Overloaded}
		}
		return &flow.Error{Class: flow.Unauthenticated}
	}
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
		{name: "name", send: join(none, name), want: join([]byte{5, 0}, answer(succeeded)), rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "ipv6", send: join(none, connectIPv6), want: join([]byte{5, 0}, answer(succeeded)), rec: flow.Request{Host: "2001:db8::1", Port: 443}},
		{name: "early_bytes", send: join(none, name, []byte("hello")), want: join([]byte{5, 0}, answer(succeeded)),
			rec: flow.Request{Host: "api.corp.example", Port: 443}, all: "hello"},
		{name: "no_acceptable_method", send: []byte{5, 1, 1}, want: []byte{5, 0xff}, class: flow.Unauthenticated},
		{name: "password_unasked", send: join(userpass, password("ann", "any"), name),
			want: join([]byte{5, 2, 1, 0}, answer(succeeded)), rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "password", users: users, send: join(userpass, password("ann", "secret"), name),
			want: join([]byte{5, 2, 1, 0}, answer(succeeded)), rec: flow.Request{User: "ann", Host: "api.corp.example", Port: 443}},
		{name: "password_wrong", users: users, send: join(userpass, password("ann", "guess"), name),
			want: []byte{5, 2, 1, 1}, class: flow.Unauthenticated},
		{name: "too_many_guesses", users: users, send: join(userpass, password("eve", "guess"), name),
			want: []byte{5, 2, 1, 1}, class: flow.Overloaded},
		{name: "password_not_offered", users: users, send: join(none, name), want: []byte{5, 0xff}, class: flow.Unauthenticated},
		{name: "password_version", users: users, send: join(userpass, []byte{5}), want: join([]byte{5, 2}, answer(generalFailure)), class: flow.BadRequest},
		{name: "longest_handshake_fits", users: users, send: join(fill, password(long, long), connectName(long, 443), []byte(long)),
			want: join([]byte{5, 2, 1, 0}, answer(succeeded)), rec: flow.Request{User: long, Host: long, Port: 443}, all: long},
		{name: "socks4", send: []byte{4, 1, 0, 80, 192, 0, 2, 1, 0}, want: answer(generalFailure), class: flow.BadRequest},
		{name: "several_methods", send: join([]byte{5, 4, 1, 3, 0, 2}, name), want: join([]byte{5, 0}, answer(succeeded)), rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "several_methods_with_password", users: users, send: join([]byte{5, 3, 0, 1, 2}, password("ann", "secret"), name),
			want: join([]byte{5, 2, 1, 0}, answer(succeeded)), rec: flow.Request{User: "ann", Host: "api.corp.example", Port: 443}},
		{name: "no_method", send: []byte{5, 0}, want: []byte{5, 0xff}, class: flow.Unauthenticated},
		{name: "private_methods", send: []byte{5, 3, 1, 0x80, 0xfe}, want: []byte{5, 0xff}, class: flow.Unauthenticated},
		{name: "reserved_byte", send: join(none, []byte{5, 1, 7}, name[3:]), want: join([]byte{5, 0}, answer(succeeded)), rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "ipv6_in_brackets", send: join(none, connectName("[2001:db8::1]", 443)), want: join([]byte{5, 0}, answer(succeeded)), rec: flow.Request{Host: "2001:db8::1", Port: 443}},
		{name: "ipv6_as_name", send: join(none, connectName("2001:db8::1", 443)), want: join([]byte{5, 0}, answer(succeeded)), rec: flow.Request{Host: "2001:db8::1", Port: 443}},
		{name: "empty_name", send: join(none, connectName("", 443)), want: join([]byte{5, 0}, answer(generalFailure)), class: flow.BadRequest, rec: flow.Request{Port: 443}},
		{name: "udp_associate", send: join(none, []byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0}), want: join([]byte{5, 0}, answer(commandNotSupported)),
			class: flow.BadRequest, rec: flow.Request{Host: "0.0.0.0"}},
		{name: "udp_associate_without_name", send: join(none, []byte{5, 3, 0, 3, 0, 0, 0}), want: join([]byte{5, 0}, answer(commandNotSupported)), class: flow.BadRequest},
		{name: "udp_associate_without_address_type", send: join(none, []byte{5, 3, 0, 0, 0, 0, 0}), want: join([]byte{5, 0}, answer(commandNotSupported)), class: flow.BadRequest},
		{name: "unknown_command", send: join(none, []byte{5, 0xf0}, connectIPv4[2:]), want: join([]byte{5, 0}, answer(commandNotSupported)),
			class: flow.BadRequest, rec: flow.Request{Host: "192.0.2.1", Port: 443}},
		{name: "bind", send: join(none, []byte{5, 2}, connectIPv4[2:]), want: join([]byte{5, 0}, answer(commandNotSupported)),
			class: flow.BadRequest, rec: flow.Request{Host: "192.0.2.1", Port: 443}},
		{name: "address_type", send: join(none, []byte{5, 1, 0, 2, 0, 0, 80}), want: join([]byte{5, 0}, answer(addressTypeNotSupported)), class: flow.BadRequest},
		{name: "port_0", send: join(none, connectName("a", 0)), want: join([]byte{5, 0}, answer(generalFailure)),
			class: flow.BadRequest, rec: flow.Request{Host: "a"}},
		{name: "road_fails", err: &flow.Error{Class: flow.Refused}, send: join(none, name), want: join([]byte{5, 0}, answer(connectionRefused)),
			class: flow.Refused, rec: flow.Request{Host: "api.corp.example", Port: 443}},
		{name: "too_much_after_failure", send: join([]byte{4}, make([]byte, 3000)), want: answer(generalFailure), class: flow.BadRequest},
		{name: "truncated_nothing", class: flow.Canceled},
		{name: "truncated_greeting", send: []byte{5, 2, 0}, class: flow.Canceled},
		{name: "truncated_password", users: users, send: join(userpass, []byte{1, 3, 'a'}), want: []byte{5, 2}, class: flow.Canceled},
		{name: "truncated_request", send: join(none, name[:len(name)-1]), want: []byte{5, 0}, class: flow.Canceled},
	} {
		for _, piece := range []int{1, 1 << 20} { // byte by byte, and all at once
			t.Run(c.name+map[int]string{1: "_bytewise"}[piece], func(t *testing.T) {
				client, server := testkit.TCPPair(t)
				_, target := testkit.TCPPair(t)
				r := &road{err: c.err, target: target}
				done := serve(t, &Server{Road: r, Authenticate: c.users}, server)
				for part := range slices.Chunk(c.send, piece) {
					if _, err := client.Write(part); err != nil {
						t.Fatal(err)
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
				c.rec.Front = flow.SOCKS5
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

// TestTimeout checks what a client gets that is too slow.
func TestTimeout(t *testing.T) {
	client, server := testkit.TCPPair(t)
	r := &road{}
	done := serve(t, &Server{Road: r, Timeout: 30 * time.Millisecond}, server)
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, answer(ttlExpired)) {
		t.Errorf("the client reads %v, %v; want %v", got, err, answer(ttlExpired))
	}
	client.Close()
	<-done
	if len(r.finished) != 1 || flow.ClassOf(r.finished[0].Err) != flow.Timeout {
		t.Errorf("finished records %+v, want one of class %v", r.finished, flow.Timeout)
	}
}

// TestHandshakeTimeout checks that one deadline bounds the whole handshake: it ends
// for a client that sends a byte now and then just as for a silent one. The
// handshake needs no half-close, so net.Pipe serves, which follows the clock of the
// bubble.
func TestHandshakeTimeout(t *testing.T) {
	greeting := append([]byte{5, 255}, make([]byte, 255)...)
	whole := join([]byte{5, 1, 0}, connectIPv4)
	for _, c := range []struct {
		name string
		send []byte // one byte a second
		ends bool
	}{
		{"silent", nil, false},
		{"in_the_greeting", greeting, false},
		{"in_the_request", whole[:len(whole)-1], false},
		{"whole", whole, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				var ends sync.WaitGroup // of what the client does: it ends when the server's end is closed
				defer ends.Wait()
				defer server.Close()
				ends.Go(func() { io.Copy(io.Discard, client) })
				ends.Go(func() {
					for _, b := range c.send {
						if _, err := client.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				})
				s := &Server{Timeout: time.Minute}
				start := time.Now()
				err := s.handshakeInTime(t.Context(), &reader{conn: server}, &flow.Record{})
				if !c.ends {
					if took := time.Since(start); took != time.Minute || flow.ClassOf(err) != flow.Timeout {
						t.Errorf("the handshake ends after %v with %v, want class %v after %v", took, err, flow.Timeout, time.Minute)
					}
					return
				}
				if err != nil {
					t.Fatalf("the handshake ends with %v, want nil", err)
				}
				time.Sleep(time.Hour) // no deadline is left
				ends.Go(func() { client.Write([]byte("late")) })
				if n, err := server.Read(make([]byte, 4)); n != 4 || err != nil {
					t.Errorf("a read an hour later: %d bytes, %v; want 4, nil", n, err)
				}
			})
		})
	}
}
