package sni

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

const (
	// maxHello bounds the bytes of a hello, record headers included. A hello with
	// post-quantum key shares has about 2 KiB, and one with many tickets or padding up to
	// 16 KiB.
	maxHello = 32 << 10
	// firstRead is the size of the first buffer. Most hellos fit.
	firstRead = 2 << 10
)

// Numbers of TLS: RFC 8446 sections 5.1 and 4, RFC 6066 section 3.
const (
	handshakeRecord = 22
	recordHeader    = 5
	maxRecord       = 1 << 14

	clientHello   = 1
	messageHeader = 4

	serverNameExtension = 0
	hostName            = 0
)

// readHello reads a ClientHello, which may come in any number of records and
// packets. It returns the server name, in lower case and without trailing dot, and
// all bytes that it has read, which may be more than the hello. The error is a
// *flow.Error. If r returns one, it is that.
//
// It looks at the server name and at what leads there, and at nothing else: the target
// judges the rest. crypto/tls is stricter. It rejects a whole hello for a name with a
// trailing dot, which some clients send.
func readHello(r io.Reader) (name string, read []byte, err error) {
	var h hello
	buf := make([]byte, 0, firstRead)
	for {
		n, rerr := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		message, err := h.add(buf)
		switch {
		case err != nil:
			return "", nil, err
		case message != nil:
			name, err = nameIn(message)
			if err != nil {
				return "", nil, err
			}
			return name, buf, nil
		case rerr != nil:
			return "", nil, readError(rerr)
		case len(buf) >= maxHello:
			return "", nil, tooLong()
		case len(buf) == cap(buf):
			buf = append(make([]byte, 0, min(2*cap(buf), maxHello)), buf...)
		}
	}
}

// hello collects a ClientHello from its records.
type hello struct {
	next    int    // where the next record begins
	message []byte // the handshake message so far, with its header
}

// add looks at the records in b that were not there before. b has all bytes of the
// stream so far. It returns the body of the ClientHello when it is complete, and nil
// before that.
func (h *hello) add(b []byte) (body []byte, err error) {
	for h.next < len(b) {
		record := b[h.next:]
		if record[0] != handshakeRecord || len(record) > 1 && record[1] != 3 {
			return nil, badRequest("this port accepts TLS only: the client sent something else", errors.New("not a record of a TLS handshake"))
		}
		if len(record) < recordHeader {
			return nil, nil
		}
		size := int(record[3])<<8 | int(record[4])
		if size == 0 || size > maxRecord { // RFC 8446 section 5.1
			return nil, badRequest("the ClientHello is invalid", fmt.Errorf("a record of %d bytes", size))
		}
		if len(record) < recordHeader+size {
			return nil, nil
		}
		h.next += recordHeader + size
		part := record[recordHeader : recordHeader+size : recordHeader+size]
		if h.message == nil {
			h.message = part // no copy: nearly all hellos are in one record
		} else {
			h.message = append(h.message, part...)
		}
		body, err = h.body()
		if body != nil || err != nil {
			return body, err
		}
	}
	return nil, nil
}

// body returns the body of the message if it is complete.
func (h *hello) body() ([]byte, error) {
	m := h.message
	if m[0] != clientHello {
		return nil, badRequest("the client must begin with a ClientHello", fmt.Errorf("a handshake message of type %d", m[0]))
	}
	if len(m) < messageHeader {
		return nil, nil
	}
	size := int(m[1])<<16 | int(m[2])<<8 | int(m[3])
	if messageHeader+size > maxHello {
		return nil, tooLong()
	}
	if len(m) < messageHeader+size {
		return nil, nil
	}
	return m[messageHeader : messageHeader+size], nil
}

// nameIn returns the server name in the body of a ClientHello, if it is one that can be
// a target.
func nameIn(body []byte) (string, error) {
	name, err := serverName(body)
	if err != nil {
		return "", err
	}
	name = strings.ToLower(name)
	short := strings.TrimSuffix(name, ".")
	_, invalid := host.Parse(name)
	switch {
	case name == "":
		return "", badRequest("the client sent no server name (SNI), so the target is unknown: connect by name, or give this target a port of its own with forward", unrecognizedName)
	case host.IsAddress(host.Unbracket(short)): // RFC 6066 section 3 does not allow addresses here
		return "", badName(name, "the client sent an address as server name: connect by name, or give this target a port of its own with forward", unrecognizedName)
	case invalid != nil:
		return "", badName(name, "the client's server name is not a host name: check the URL of the client", fmt.Errorf("%w: %w", unrecognizedName, invalid))
	}
	return short, nil
}

// serverName returns the server name in the body of a ClientHello as the client sent
// it, or "" if there is none.
func serverName(body []byte) (string, error) {
	s := cryptobyte.String(body)
	var sessionID, suites, compression, extensions cryptobyte.String
	if !s.Skip(2+32) || // version, random
		!s.ReadUint8LengthPrefixed(&sessionID) ||
		!s.ReadUint16LengthPrefixed(&suites) ||
		!s.ReadUint8LengthPrefixed(&compression) {
		return "", malformed("it ends before its extensions")
	}
	if s.Empty() { // RFC 8446 section 4.1.2: TLS 1.2 allows that
		return "", nil
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return "", malformed("its extensions have another length")
	}
	var name string
	found := false
	for !extensions.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return "", malformed("an extension ends too early")
		}
		if kind != serverNameExtension {
			continue
		}
		if found {
			return "", malformed("it has two extensions with server names")
		}
		found = true
		var err error
		name, err = nameInList(data)
		if err != nil {
			return "", err
		}
	}
	return name, nil
}

// nameInList returns the host name in an extension server_name, or "" if it is empty.
func nameInList(data cryptobyte.String) (string, error) {
	if data.Empty() {
		return "", nil
	}
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || !data.Empty() {
		return "", malformed("its list of server names has another length")
	}
	var found []byte
	count := 0
	for !list.Empty() {
		var kind uint8
		var name cryptobyte.String
		if !list.ReadUint8(&kind) || !list.ReadUint16LengthPrefixed(&name) {
			return "", malformed("a server name ends too early")
		}
		if kind == hostName {
			found = name
			count++
		}
	}
	if count > 1 { // RFC 6066 section 3
		return "", malformed("it has two server names")
	}
	return string(found), nil
}

// badRequest is the error for a client's hello. cause may be an alert, which then
// is the one that the client gets.
func badRequest(hint string, cause error) error { return badName("", hint, cause) }

// badName is badRequest for a server name.
func badName(name, hint string, cause error) error {
	return &flow.Error{
		Class:  flow.BadRequest,
		Op:     "sni",
		Target: name,
		Hint:   hint,
		Err:    cause,
	}
}

func malformed(what string) error {
	return badRequest("the ClientHello is invalid", errors.New("invalid ClientHello: "+what))
}

func tooLong() error { return badRequest("the ClientHello is longer than 32 KiB", unexpectedMessage) }

// readError is the error for a client that has left, was too slow, or has no more
// memory.
func readError(cause error) error {
	if fe, ok := errors.AsType[*flow.Error](cause); ok {
		return fe
	}
	e := &flow.Error{
		Class: flow.Canceled,
		Op:    "sni",
		Hint:  "the client left before its ClientHello was complete",
		Err:   cause,
	}
	if ne, ok := errors.AsType[net.Error](cause); ok && ne.Timeout() {
		e.Class = flow.Timeout
		e.Hint = "the ClientHello did not arrive in time"
	}
	return e
}
