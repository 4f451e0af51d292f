package socks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

const (
	version4 = 4
	// head4 is the size of what comes before the user ID: version, command, port, address.
	head4 = 8
	// maxText4 bounds the user ID, and the host name of 4A, in bytes. The protocol has no
	// bound.
	maxText4 = 255
)

// replyCode4 is a reply code of version 4.
type replyCode4 byte

const (
	granted      replyCode4 = 90
	rejected     replyCode4 = 91
	wrongUserID4 replyCode4 = 93 // "the client program and identd report different user-ids"

	noReply4 replyCode4 = 0 // send nothing: the client has left
)

// message returns the reply as the client gets it, or nil if it gets none. The version
// in a reply is 0. Clients of CONNECT do not use the port and the address.
func (r replyCode4) message() []byte {
	if r == noReply4 {
		return nil
	}
	return []byte{0, byte(r), 0, 0, 0, 0, 0, 0}
}

// replyFor4 returns the reply for err. The protocol has few: which class it is, the log
// says.
func replyFor4(err error) replyCode4 {
	switch flow.ClassOf(err) {
	case flow.OK:
		return granted
	case flow.Unauthenticated:
		return wrongUserID4
	case flow.Canceled:
		return noReply4
	case flow.Internal, flow.BadRequest, flow.Denied, flow.NotFound, flow.ResolveFailed, flow.NoRoute, flow.Refused, flow.Unreachable, flow.Timeout, flow.Reset, flow.BadResponse, flow.BadCertificate, flow.Idle, flow.Overloaded, flow.NotReady, flow.Cut, flow.Loop:
		return rejected
	}
	return rejected
}

// handshake4 reads the request, which is all of the handshake, and fills in rec.
func (s *Server) handshake4(in *reader, rec *flow.Record) error {
	req, err := parse(in, parseRequest4)
	if err != nil {
		return err
	}
	rec.Host = req.host
	rec.Port = req.port
	switch {
	case req.command != commandConnect:
		return unsupported(errors.New("command " + strconv.Itoa(int(req.command)) + " of SOCKS4"))
	case s.Authenticate != nil: // the user ID proves nothing
		return &flow.Error{
			Class: flow.Unauthenticated,
			Op:    "socks",
			Hint:  "Pando requires a username and password, which SOCKS4 does not have: use SOCKS5, such as socks5h://user:password@host:1055",
			Err:   errors.New("SOCKS4 has no passwords"),
		}
	case req.host == "":
		return badRequest("empty host name")
	case req.port == 0:
		return badRequest("port 0 is not a port to connect to")
	}
	return nil
}

// parseRequest4 reads a request of version 4 or 4A: version, command, port, address,
// user ID, and the host name if the address is 0.0.0.x with an x other than 0.
func parseRequest4(b []byte) (r request, n int, err error) {
	if len(b) > 0 && b[0] != version4 {
		return r, 0, badRequest("not a request of SOCKS version 4")
	}
	if len(b) < head4 {
		return r, 0, nil
	}
	_, n, err = text4(b, head4, "user ID")
	if n == 0 || err != nil {
		return r, 0, err
	}
	r.command = b[1]
	r.port = binary.BigEndian.Uint16(b[2:])
	addr := [4]byte(b[4:head4])
	named := [3]byte(addr[:3]) == [3]byte{} && addr[3] != 0
	if !named {
		r.host = netip.AddrFrom4(addr).String()
		return r, n, nil
	}
	name, n, err := text4(b, n, "host name")
	if n == 0 || err != nil {
		return request{}, 0, err
	}
	r.host = host.Unbracket(name)
	return r, n, nil
}

// text4 reads a text that begins at b[start] and ends with a NUL. n is where the next
// field begins; 0 means that the text is not complete.
func text4(b []byte, start int, what string) (text string, n int, err error) {
	end := bytes.IndexByte(b[start:], 0)
	if end > maxText4 || end < 0 && len(b)-start > maxText4 {
		return "", 0, badRequest("the " + what + " is longer than " + strconv.Itoa(maxText4) + " bytes")
	}
	if end < 0 {
		return "", 0, nil
	}
	return string(b[start : start+end]), start + end + 1, nil
}
