package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath/forward"
	"github.com/pandoproxy/pando/internal/datapath/mux"
	"github.com/pandoproxy/pando/internal/datapath/sni"
	"github.com/pandoproxy/pando/internal/dnsserver"
	"github.com/pandoproxy/pando/internal/own"
	"github.com/pandoproxy/pando/internal/socket"
)

// ports are the open ports of a replica.
type ports struct {
	fronts     []frontListener    // the proxy port is the first
	admin      []*net.TCPListener // none without an admin port
	dnsPackets net.PacketConn     // nil without listen.dns
	dnsStreams net.Listener       // nil without listen.dns
}

// frontListener is a port for clients, and how its clients are served.
type frontListener struct {
	*net.TCPListener
	role mux.Role
}

// frontPort is a port for clients that is to be opened.
type frontPort struct {
	key  string // in the configuration
	addr string
	role mux.Role
}

// openPorts binds all ports of the configuration. After an error none is open.
func (g *Gateway) openPorts(ctx context.Context) (_ *ports, err error) {
	p := &ports{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	c := g.cfg.Listen
	for _, f := range g.frontPorts() {
		ln, err := listenAt(ctx, f.key, f.addr, c.ReusePort, time.Duration(g.cfg.Tunnel.PeerTimeout))
		if err != nil {
			return nil, err
		}
		p.fronts = append(p.fronts, frontListener{ln, f.role})
	}
	for i, addr := range adminAddrs(c) {
		key := "listen.admin"
		if i > 0 {
			key = fmt.Sprintf("listen.adminAlso[%d]", i-1)
		}
		ln, err := listenAt(ctx, key, addr, false, 0)
		if err != nil {
			return nil, err
		}
		p.admin = append(p.admin, ln)
	}
	if c.DNS != "" {
		p.dnsPackets, p.dnsStreams, err = dnsserver.Listen(ctx, socket.ListenConfig(c.ReusePort, 0), c.DNS)
		if err != nil {
			return nil, fmt.Errorf("listen.dns: %w", err)
		}
	}
	return p, nil
}

// listenAt binds addr, which the configuration has at key. A port in use is an
// error, unless reusePort shares it with other processes that want to share it.
// Clients that acknowledge nothing for peerTimeout are disconnected; zero leaves
// that to the kernel.
func listenAt(ctx context.Context, key, addr string, reusePort bool, peerTimeout time.Duration) (*net.TCPListener, error) {
	lc := socket.ListenConfig(reusePort, peerTimeout)
	ln, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use; stop what uses it (ss -ltnp shows it), or choose another port", key, addr)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return ln.(*net.TCPListener), nil
}

// frontPorts lists the ports for clients: the proxy's, where the first byte of
// a client chooses between HTTP and SOCKS5, and those of the other fronts.
func (g *Gateway) frontPorts() []frontPort {
	cfg := g.cfg
	proxy := mux.Role{Senders: cfg.Listen.ProxyProtocol}
	list := []frontPort{{"listen.proxy", cfg.Listen.Proxy, proxy}}
	for i, addr := range cfg.Listen.Also {
		list = append(list, frontPort{fmt.Sprintf("listen.also[%d]", i), addr, proxy})
	}
	senders := func(own []netip.Prefix) []netip.Prefix {
		if own != nil { // an empty list means none
			return own
		}
		return proxy.Senders
	}
	for i, p := range cfg.SNI {
		front := &sni.Server{
			Road:    served(g.road, cfg, p, 443),
			Port:    uint16(cmp.Or(p.Port, 443)),
			Timeout: time.Duration(cfg.HTTP.HeaderTimeout),
			Memory:  g.road.Limit.Memory,
		}
		list = append(list, frontPort{fmt.Sprintf("sni[%d].listen", i), p.Listen, mux.Role{Front: front, Senders: senders(p.ProxyProtocol)}})
	}
	for i, p := range cfg.Web {
		list = append(list, frontPort{fmt.Sprintf("web[%d].listen", i), p.Listen, mux.Role{Front: g.proxies[1+i], Senders: senders(p.ProxyProtocol)}})
	}
	for i, p := range cfg.Forward {
		front := &forward.Server{
			Road: g.road,
			Host: p.Target.Host,
			Port: p.Target.Port,
		}
		role := mux.Role{Front: front, TargetFirst: true, Senders: senders(p.ProxyProtocol)}
		list = append(list, frontPort{fmt.Sprintf("forward[%d].listen", i), p.Listen, role})
	}
	return list
}

// adminAddrs returns the addresses of the admin port; none when it is off.
func adminAddrs(c config.Listen) []string {
	if c.Admin == "" {
		return nil
	}
	return append([]string{c.Admin}, c.AdminAlso...)
}

// addrs returns the addresses of the ports for clients.
func (p *ports) addrs() []string {
	var list []string
	for _, ln := range p.fronts {
		list = append(list, ln.Addr().String())
	}
	return list
}

// closeFronts closes the ports for clients. It does not close connections.
func (p *ports) closeFronts() {
	for _, ln := range p.fronts {
		ln.Close()
	}
}

// closeAdmin closes the admin port.
func (p *ports) closeAdmin() {
	for _, ln := range p.admin {
		ln.Close()
	}
}

// close closes all ports.
func (p *ports) close() {
	p.closeFronts()
	p.closeAdmin()
	if p.dnsPackets != nil {
		p.dnsPackets.Close()
		p.dnsStreams.Close()
	}
}

// own reports whether a leads back to this replica or to its fleet: to a port
// of this replica on an address of this host or on its tailnet address, or to an
// address of the fleet on any port.
func (g *Gateway) own(a netip.AddrPort) bool {
	if g.fleet.Contains(a.Addr()) {
		return true
	}
	anyAddr := false // a port of this number listens on all addresses
	for _, listen := range g.ports.listening() {
		if a.Port() != listen.Port() {
			continue
		}
		if a.Addr() == listen.Addr() {
			return true
		}
		anyAddr = anyAddr || listen.Addr().IsUnspecified()
	}
	return anyAddr && (slices.Contains(g.device.Addrs(), a.Addr()) || own.IsHostAddr(a.Addr()))
}

// listening returns the addresses of all ports.
func (p *ports) listening() []netip.AddrPort {
	var list []netip.AddrPort
	add := func(ln net.Listener) {
		ap := ln.Addr().(*net.TCPAddr).AddrPort()
		list = append(list, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	}
	for _, ln := range p.fronts {
		add(ln)
	}
	for _, ln := range p.admin {
		add(ln)
	}
	if p.dnsStreams != nil {
		add(p.dnsStreams)
	}
	return list
}
