package gateway

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/podproxy"
	"github.com/pandoproxy/pando/internal/socket"
)

// direct returns the dialer of the host's own network. Peers that acknowledge
// nothing for peerTimeout are gone; zero leaves that to the kernel.
func direct(peerTimeout time.Duration) dial.Func {
	userTimeout := socket.UserTimeout(peerTimeout)
	d := net.Dialer{
		Control: func(network, addr string, c syscall.RawConn) error {
			return errors.Join(userTimeout(network, addr, c), socket.BoundUnsent(c))
		},
		KeepAliveConfig: socket.KeepAlive(peerTimeout),
	}
	return func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", addr.String())
	}
}

// served returns the road of a port of sni or web, whose target port is defaultPort
// unless p has one.
func served(road *datapath.Road, cfg config.Config, p config.FrontPort, defaultPort int) *datapath.Served {
	s := &datapath.Served{Road: road, Port: uint16(cmp.Or(p.Port, defaultPort))}
	if p.AnyPort {
		s.Port = 0
	}
	for _, name := range p.Serves {
		s.Names = append(s.Names, strings.ToLower(name))
	}
	if len(s.Names) == 0 {
		for _, suffix := range servedSuffixes(cfg.DNS) {
			s.Names = append(s.Names, suffix, "*."+suffix)
		}
	}
	return s
}

// podProxy returns the proxy that the replica's own environment names.
func podProxy(cfg config.Config, o Options, own func(netip.AddrPort) bool) *podproxy.Proxy {
	p := podproxy.Options{
		Environ:   o.Environ,
		Own:       own,
		Name:      proxyName(cfg.Tailnet.Hostname),
		HostsFile: o.HostsFile,
		Log:       o.Log,
	}
	for _, h := range slices.Concat(cfg.Listen.Replicas, cfg.DNS.Fleet) {
		p.Fleet = append(p.Fleet, h.String())
	}
	return podproxy.New(p)
}

// proxyName returns the replica's name in Via and Proxy-Status. Each replica has a
// name of its own, so that a request that comes back can be distinguished from one
// that passes another fleet. It begins with a letter, as a token of RFC 9651 does.
func proxyName(hostname string) string {
	if hostname == "" {
		hostname, _ = os.Hostname()
	}
	if hostname == "" || hostname[0] >= '0' && hostname[0] <= '9' {
		return "pando-" + hostname
	}
	return hostname
}
