// Package socket adds to package net what Pando needs of a connection:
//
//   - Peek returns the first bytes and leaves them unread.
//   - Readable and AwaitHangUp notice what the peer does, without a read.
//   - CloseWrite ends one direction. Abort ends both with a reset. CloseGently
//     ends both after everything written has arrived.
//   - KeepAlive, UserTimeout and ListenConfig set socket options.
//   - ClientAddr tells who a client is. DialForwarded and Introduce say so, where that
//     is not the other end of the connection.
//   - BoundUnsent and Shrink bound what a connection holds in its buffers; Held
//     measures it.
//   - AcceptFailures slows down a listener that cannot accept.
//
// The package does not wrap connections or know protocols.
//
// Connections of the userspace network stack (internal/tailnet/userspace) are
// not kernel sockets. The functions that take a net.Conn recognise them by
// their methods.
package socket

import (
	"errors"
	"io"
	"net"
	"time"
)

const (
	// gentleTime and gentleBytes bound what CloseGently reads.
	gentleTime  = 500 * time.Millisecond
	gentleBytes = 256 << 10
)

// past is a deadline that ends pending reads and writes at once.
var past = time.Unix(1, 0)

// errNoHalfClose is the error of CloseWrite for a connection that can only be
// closed in both directions.
var errNoHalfClose = errors.New("the connection can't be closed in one direction")

// CloseGently closes c so that everything written to it arrives. A plain close
// with unread bytes sends a reset, which can overtake the written bytes (RFC
// 9112 section 9.6). CloseGently therefore ends the write side, reads until the
// peer closes, and then closes. It blocks for half a second at most.
func CloseGently(c *net.TCPConn) {
	c.CloseWrite()
	c.SetReadDeadline(time.Now().Add(gentleTime))
	io.Copy(io.Discard, io.LimitReader(c, gentleBytes))
	c.Close()
}

// CloseWrite ends the write side of c, so that the peer reads an end of stream.
// It returns errNoHalfClose when c cannot do that. It returns nil when the peer
// has already gone: such a peer has all the bytes that it wanted.
func CloseWrite(c net.Conn) error {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return errNoHalfClose
	}
	half.CloseWrite()
	return nil
}

// Abort closes c with a reset if its network stack can send one. Reads and
// writes that are in progress end at once, in other goroutines too.
func Abort(c net.Conn) {
	switch c := c.(type) {
	case interface{ Abort() }: // the userspace network stack
		c.Abort()
	case interface{ SetLinger(int) error }: // the kernel
		c.SetLinger(0)
	}
	c.SetDeadline(past)
	c.Close()
}
