package testnet

import (
	"fmt"
	"net"
	"net/netip"
)

// firstFreePort is the first port that NewAddr hands out. The ports below it
// are for servers whose number says something, such as 80 and 443.
const firstFreePort = 20000

// NewAddr returns APIAddr with a port that nothing else uses. Connections to
// it are refused until Handle or Listen serves it.
func (c *Cloud) NewAddr() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	addr := netip.AddrPortFrom(APIAddr, firstFreePort)
	for _, taken := c.tcp[addr]; taken; _, taken = c.tcp[addr] {
		addr = netip.AddrPortFrom(APIAddr, addr.Port()+1)
	}
	c.tcp[addr] = nil
	return addr
}

// Serve gives every TCP connection to a new address to h, which closes it, and
// returns the address: see NewAddr.
func (c *Cloud) Serve(h func(net.Conn)) netip.AddrPort {
	addr := c.NewAddr()
	c.Handle(addr, h)
	return addr
}

// NewHost returns an address of Network that nothing else uses, for ServeDNS.
func (c *Cloud) NewHost() netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts++
	return netip.AddrFrom4([4]byte{10, 12, 53 + byte(c.hosts/250), byte(1 + c.hosts%250)})
}

// NamePort names an address of the API as clients would: by APIName.
func NamePort(addr netip.AddrPort) string { return fmt.Sprintf("%s:%d", APIName, addr.Port()) }
