// Package proxyheader reads the header with which a load balancer says who its client
// is: the PROXY protocol, versions 1 and 2
// (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt). It reads exactly the
// header, whatever its size, with a buffer of fixed size, and leaves the rest of the
// stream in the socket: the connection stays a *net.TCPConn. It does not decide whose
// headers count.
package proxyheader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

const (
	// signature1 begins a header of version 1, section 2.1.
	signature1 = "PROXY "
	// signature2 begins a header of version 2, section 2.2.
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
	// maxLine is the size of the longest line of version 1, section 2.1.
	maxLine = 107

	// PeekSize is how many bytes Detect needs at most.
	PeekSize = len(signature2)
)

// Kind is what the first bytes of a connection are.
type Kind uint8

const (
	None     Kind = iota // not a header
	Begun                // perhaps a header: more bytes will tell
	Version1             // a header, as text
	Version2             // a header, in binary form
)

// Detect returns what begins with b, which has at least one byte.
func Detect(b []byte) Kind {
	switch {
	case bytes.HasPrefix(b, []byte(signature1)):
		return Version1
	case bytes.HasPrefix(b, []byte(signature2)):
		return Version2
	case strings.HasPrefix(signature1, string(b)), strings.HasPrefix(signature2, string(b)):
		return Begun
	}
	return None
}

// Read reads the header at the beginning of c. client is the address that the header
// gives, never an IPv4-mapped one. It is not valid if the other end of c speaks for
// itself: with the command LOCAL, or because the client has no address of TCP over IP.
// The read deadline of c applies. The error is a *flow.Error; its class is BadRequest if
// there is no header, or an invalid one. If c begins with something else, nothing is
// read.
func Read(c *net.TCPConn) (client netip.AddrPort, err error) {
	b := make([]byte, maxLine)
	n, err := socket.Peek(c, b[:PeekSize], func(b []byte) bool { return Detect(b) != Begun })
	kind := None
	if n > 0 {
		kind = Detect(b[:n])
	}
	switch {
	case kind == Version1:
		return readLine(c, b)
	case kind == Version2:
		return readBinary(c)
	case err != nil:
		return client, readError(err)
	}
	return client, errMissing()
}

// readLine reads a header of version 1. b has room for the longest.
func readLine(c *net.TCPConn, b []byte) (client netip.AddrPort, err error) {
	n, err := socket.Peek(c, b, func(b []byte) bool { return bytes.IndexByte(b, '\n') >= 0 })
	end := bytes.IndexByte(b[:n], '\n')
	switch {
	case end >= 0:
	case err != nil:
		return client, readError(err)
	default:
		return client, malformed("the line is longer than %d bytes", maxLine)
	}
	if _, err := io.ReadFull(c, b[:end+1]); err != nil {
		return client, readError(err)
	}
	return parseLine(string(b[:end+1]))
}

// parseLine reads "PROXY TCP4 client proxy client-port proxy-port\r\n".
func parseLine(line string) (client netip.AddrPort, err error) {
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return client, malformed("the line ends without a CR")
	}
	words := strings.Split(text, " ")
	if words[1] == "UNKNOWN" { // there is at least one space
		return client, nil // whatever follows
	}
	if words[1] != "TCP4" && words[1] != "TCP6" {
		return client, malformed("unknown protocol %q: it must be TCP4, TCP6 or UNKNOWN", words[1])
	}
	if len(words) != 6 {
		return client, malformed("the line has %d words, not 6", len(words))
	}
	var addrs [2]netip.AddrPort
	for i := range addrs {
		a, err := netip.ParseAddr(words[2+i])
		if err != nil || a.Is4() != (words[1] == "TCP4") || a.Zone() != "" {
			return client, malformed("invalid address %q for %s", words[2+i], words[1])
		}
		port, err := strconv.ParseUint(words[4+i], 10, 16)
		if err != nil || strconv.FormatUint(port, 10) != words[4+i] {
			return client, malformed("invalid port %q", words[4+i])
		}
		addrs[i] = netip.AddrPortFrom(a.Unmap(), uint16(port))
	}
	return source(addrs[0])
}

// Fields of version 2, section 2.2.
const (
	headSize = 16 // signature, version and command, family, length

	commandLocal = 0
	commandProxy = 1

	tcp4 = 0x11
	tcp6 = 0x21

	// The highest family is that of Unix sockets, and the highest protocol that of
	// datagrams.
	lastFamily   = 3
	lastProtocol = 2
)

// addressSize is the size of the addresses of each family.
var addressSize = [lastFamily + 1]int{0, 12, 36, 216}

// readBinary reads a header of version 2. Its extensions (TLVs) are discarded.
func readBinary(c *net.TCPConn) (client netip.AddrPort, err error) {
	var b [headSize + 36]byte
	if _, err := io.ReadFull(c, b[:headSize]); err != nil {
		return client, readError(err)
	}
	if v := b[12] >> 4; v != 2 {
		return client, malformed("unknown version %d", v)
	}
	size := int(binary.BigEndian.Uint16(b[14:]))
	kept := min(size, len(b)-headSize)
	if _, err := io.ReadFull(c, b[headSize:headSize+kept]); err != nil {
		return client, readError(err)
	}
	// The rest is read even if the header is invalid, so that what follows is the
	// client's.
	if _, err := io.CopyN(io.Discard, c, int64(size-kept)); err != nil {
		return client, readError(err)
	}
	return parseBinary(b[:headSize], b[headSize:headSize+kept], size)
}

// parseBinary reads the head of a header and the beginning of what follows it, which
// has size bytes.
func parseBinary(head, b []byte, size int) (client netip.AddrPort, err error) {
	command := head[12] & 0xf
	family := head[13] >> 4
	protocol := head[13] & 0xf
	switch {
	case command == commandLocal:
		return client, nil // the family and what follows have no meaning
	case command != commandProxy:
		return client, malformed("unknown command %d", command)
	case family > lastFamily || protocol > lastProtocol:
		return client, malformed("unknown address family 0x%02x", head[13])
	case size < addressSize[family]:
		return client, malformed("%d bytes are too few for the addresses of family 0x%02x", size, head[13])
	case head[13] == tcp4:
		return source(netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[8:])))
	case head[13] == tcp6:
		return source(netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[32:])))
	}
	return client, nil
}

// source returns a client's address if it can be one.
func source(a netip.AddrPort) (netip.AddrPort, error) {
	if a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
		return netip.AddrPort{}, malformed("%s is not a client's address", a.Addr())
	}
	return a, nil
}

// errMissing is the error for a connection that begins with something else.
func errMissing() error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "proxy_protocol",
		Hint:  "connections from this sender must begin with a PROXY header, because proxyProtocol has its address: switch the header on at the load balancer, or take the address out",
		Err:   errors.New("no PROXY header"),
	}
}

func malformed(format string, args ...any) error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "proxy_protocol",
		Hint:  "the PROXY header of the load balancer is invalid: check its setting for the PROXY protocol",
		Err:   fmt.Errorf("invalid PROXY header: "+format, args...),
	}
}

// readError is the error for a sender that has left, or was too slow.
func readError(cause error) error {
	e := &flow.Error{
		Class: flow.Canceled,
		Op:    "proxy_protocol",
		Hint:  "the sender left before its PROXY header was complete",
		Err:   cause,
	}
	if errors.Is(cause, os.ErrDeadlineExceeded) {
		e.Class = flow.Timeout
		e.Hint = "the PROXY header of the load balancer did not arrive in time"
	}
	return e
}
