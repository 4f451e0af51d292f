package dnsserver

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestLongQueries checks that the announcement of a long query is an error, however its two
// bytes arrive, that it ends the connection, and that a padded query is answered.
func TestLongQueries(t *testing.T) {
	for _, tc := range []struct {
		name string
		sent string
		want error
	}{
		{"longest", "\xff\xff", errLongQuery},
		{"just_over", "\x10\x01", errLongQuery},
		{"as_long_as_may", "\x10\x00", nil},
	} {
		for _, parts := range [][]string{{tc.sent}, {tc.sent[:1], tc.sent[1:]}} {
			near, far := net.Pipe()
			go func() {
				for _, part := range parts {
					far.Write([]byte(part))
				}
			}()
			if _, err := io.ReadFull(&queryConn{Conn: near}, make([]byte, 2)); !errors.Is(err, tc.want) {
				t.Errorf("%s, in %d parts: error %v, want %v", tc.name, len(parts), err, tc.want)
			}
			near.Close()
		}
	}

	addr, _ := serve(t, server())
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	client := dns.Conn{Conn: c}
	q := new(dns.Msg).SetQuestion("api.corp.example.", dns.TypeA)
	q.SetEdns0(1232, false)
	opt := q.IsEdns0()
	opt.Option = append(opt.Option, &dns.EDNS0_PADDING{Padding: make([]byte, 3000)})
	for range 2 { // the second one on the same connection
		if err := client.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
		if answer, err := client.ReadMsg(); err != nil || len(answer.Answer) != 1 {
			t.Errorf("a query with 3,000 bytes of padding got %v, %v; want one address", answer, err)
		}
	}
	c.Write([]byte("\xff\xff"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after a long query the client reads %v, want %v: the connection is closed", err, io.EOF)
	}
}
