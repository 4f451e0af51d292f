package socks

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// Numbers of RFC 1928 and RFC 1929.
const (
	version5        = 5
	passwordVersion = 1

	methodNone           = 0x00
	methodPassword       = 0x02
	methodNoneAcceptable = 0xff

	commandConnect = 1

	addrIPv4 = 1
	addrName = 3
	addrIPv6 = 4
)

// replyCode is a reply code, RFC 1928 section 6.
type replyCode byte

const (
	succeeded               replyCode = 0
	generalFailure          replyCode = 1
	notAllowed              replyCode = 2
	networkUnreachable      replyCode = 3
	hostUnreachable         replyCode = 4
	connectionRefused       replyCode = 5
	ttlExpired              replyCode = 6
	commandNotSupported     replyCode = 7
	addressTypeNotSupported replyCode = 8

	noReply replyCode = 0xff // send nothing: the protocol has no place for a reply, or the client has left
)

// Error makes a reply the cause of a flow.Error. replyFor then returns it
// instead of the reply of the class.
func (r replyCode) Error() string {
	switch r {
	case commandNotSupported:
		return "command not supported"
	case addressTypeNotSupported:
		return "address type not supported"
	}
	return "reply " + strconv.Itoa(int(r))
}

// message returns the reply as the client gets it, or nil if it gets none. The bound
// address is left unspecified: clients of CONNECT do not use it (section 6).
func (r replyCode) message() []byte {
	if r == noReply {
		return nil
	}
	return []byte{version5, byte(r), 0, addrIPv4, 0, 0, 0, 0, 0, 0}
}

// answered is an error that the client knows: the status of RFC 1929 has said so. The
// connection must end with it (section 2).
type answered struct{ error }

// Unwrap returns the error.
func (a answered) Unwrap() error { return a.error }

// replyFor returns the reply for err: the replyCode in its chain if there is one,
// otherwise that of its class.
func replyFor(err error) replyCode {
	if _, ok := errors.AsType[answered](err); ok {
		return noReply
	}
	if r, ok := errors.AsType[replyCode](err); ok {
		return r
	}
	switch flow.ClassOf(err) {
	case flow.OK:
		return succeeded
	case flow.Denied:
		return notAllowed
	case flow.NoRoute:
		return networkUnreachable
	case flow.NotFound, flow.ResolveFailed, flow.Unreachable:
		return hostUnreachable
	case flow.Refused:
		return connectionRefused
	case flow.Timeout:
		return ttlExpired
	case flow.Unauthenticated, flow.Canceled:
		return noReply
	case flow.Internal, flow.BadRequest, flow.Reset, flow.BadResponse, flow.BadCertificate, flow.Idle, flow.Overloaded, flow.NotReady, flow.Cut, flow.Loop:
		return generalFailure
	}
	return generalFailure
}

// The parsers take what has been read, and return the message and its length.
// Length 0 means that the message is not complete. They keep no reference to b.

// parseGreeting reads the client's list of methods.
func parseGreeting(b []byte) (methods []byte, n int, err error) {
	if len(b) > 0 && b[0] != version5 {
		return nil, 0, badRequest("not SOCKS version 5")
	}
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return nil, 0, nil
	}
	n = 2 + int(b[1])
	return append([]byte(nil), b[2:n]...), n, nil
}

type credentials struct{ user, password string }

// parseCredentials reads the sub-negotiation of RFC 1929.
func parseCredentials(b []byte) (c credentials, n int, err error) {
	if len(b) > 0 && b[0] != passwordVersion {
		return c, 0, badRequest("not version 1 of username/password authentication")
	}
	if len(b) < 2 {
		return c, 0, nil
	}
	u := 2 + int(b[1])
	if len(b) < u+1 {
		return c, 0, nil
	}
	n = u + 1 + int(b[u])
	if len(b) < n {
		return c, 0, nil
	}
	return credentials{string(b[2:u]), string(b[u+1 : n])}, n, nil
}

type request struct {
	command byte
	host    string
	port    uint16
}

// parseRequest reads a request and checks its form. Clients send a command other than
// CONNECT without a usable host or port.
func parseRequest(b []byte) (r request, n int, err error) {
	if len(b) > 0 && b[0] != version5 {
		return r, 0, badRequest("not a request of SOCKS version 5")
	}
	if len(b) < 5 {
		return r, 0, nil
	}
	switch b[3] {
	case addrIPv4:
		n = 4 + 4
	case addrIPv6:
		n = 4 + 16
	case addrName:
		n = 5 + int(b[4])
	default:
		if b[1] != commandConnect {
			return r, 0, unsupported(commandNotSupported)
		}
		return r, 0, unsupported(addressTypeNotSupported)
	}
	if len(b) < n+2 {
		return r, 0, nil
	}
	r.command = b[1]
	r.port = binary.BigEndian.Uint16(b[n:])
	if b[3] == addrName {
		r.host = host.Unbracket(string(b[5:n]))
		return r, n + 2, nil
	}
	addr, _ := netip.AddrFromSlice(b[4:n])
	r.host = addr.Unmap().String()
	return r, n + 2, nil
}
