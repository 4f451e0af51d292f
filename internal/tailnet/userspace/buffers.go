package userspace

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// The sizes of the buffers of connections, in bytes. The library begins with 1
// MiB and lets them grow to 8 MiB for what is received and 6 MiB for what is
// sent, which a client that stops reading fills. A connection begins small, as
// the kernel's do. A buffer grows with what moves through it in a round trip,
// up to the bound.
const (
	firstReceiveBuffer = 128 << 10
	maxReceiveBuffer   = 2 << 20 // 330 Mbit/s at 50 ms
	firstSendBuffer    = 128 << 10
	maxSendBuffer      = 1 << 20
)

// boundBuffers sets the sizes of the buffers of later connections.
func (s *Stack) boundBuffers() tcpip.Error {
	receive := tcpip.TCPReceiveBufferSizeRangeOption{
		Min:     tcp.MinBufferSize,
		Default: firstReceiveBuffer,
		Max:     maxReceiveBuffer,
	}
	send := tcpip.TCPSendBufferSizeRangeOption{
		Min:     tcp.MinBufferSize,
		Default: firstSendBuffer,
		Max:     maxSendBuffer,
	}
	if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, &receive); err != nil {
		return err
	}
	return s.SetTransportProtocolOption(tcp.ProtocolNumber, &send)
}

// segmentShare is how many bytes of memory a byte in a buffer costs: the stack
// holds each segment in a block of its own.
const segmentShare = 2

// Held returns about how many bytes of memory the connection's buffers hold.
// The stack does not say how many bytes wait to be sent, so a buffer that takes
// no more counts as full.
func (c *conn) Held() int {
	n, err := c.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
	if err != nil {
		n = 0 // the connection has ended
	}
	if c.ep.Readiness(writeEvents)&writeEvents == 0 {
		n += int(c.ep.SocketOptions().GetSendBufferSize())
	}
	return n * segmentShare
}

// Shrink bounds what the connection receives ahead to n bytes, from now on.
func (c *conn) Shrink(n int) {
	c.ep.SocketOptions().SetReceiveBufferSize(int64(n), true)
}
