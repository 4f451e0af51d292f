package dnsclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/miekg/dns"
)

// A tailnet's resolver can be a peer that answers DNS over HTTP (RFC 8484, without TLS):
// http://100.64.0.7:40001/dns-query. Names behind an app connector have such resolvers.
// The tunnel to the peer encrypts.

const (
	peerScheme  = "http://"
	messageType = "application/dns-message"
)

// tailnetPrefixes are the addresses of a tailnet's nodes. A query over HTTP goes nowhere
// else.
var tailnetPrefixes = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fd7a:115c:a1e0::/48"),
}

// peerAddr reads the URL of a peer.
func peerAddr(s string) (addr netip.AddrPort, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return addr, fmt.Errorf("invalid resolver %q: %w", s, err)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	addr, err = netip.ParseAddrPort(host)
	if err != nil {
		return addr, fmt.Errorf("invalid resolver %q: its host is not an IP address", s)
	}
	for _, p := range tailnetPrefixes {
		if p.Contains(addr.Addr()) {
			return addr, nil
		}
	}
	return addr, fmt.Errorf("invalid resolver %q: over HTTP only nodes of the tailnet are asked", s)
}

func isPeer(server string) bool { return strings.HasPrefix(server, peerScheme) }

// exchangePeer asks a peer over HTTP.
func exchangePeer(ctx context.Context, dial DialFunc, server string, addr netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	wire, err := q.Copy().Pack()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server, bytes.NewReader(wire))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", messageType)
	req.Header.Set("Accept", messageType)
	client := http.Client{
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "tcp", addr) },
			DisableKeepAlives: true,

			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != messageType {
		return nil, fmt.Errorf("the peer answered %s with %q, want %s", resp.Status, resp.Header.Get("Content-Type"), messageType)
	}
	wire, err = io.ReadAll(io.LimitReader(resp.Body, dns.MaxMsgSize))
	if err != nil {
		return nil, err
	}
	reply := new(dns.Msg)
	if len(wire) < headerSize {
		return nil, fmt.Errorf("the peer answered %d bytes", len(wire))
	}
	if err := reply.Unpack(shorten(wire)); err != nil {
		return nil, err
	}
	if !isReplyTo(reply, q.Question[0]) {
		return nil, errors.New("the reply is for another question")
	}
	return reply, nil
}

// headerSize is how many bytes a message's header has.
const headerSize = 12
