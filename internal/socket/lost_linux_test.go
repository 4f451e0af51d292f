package socket

import (
	"io"
	"net"
	"testing"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestLost checks that Lost tells a lost connection from a stream that ended well, when
// a Write has got the error and a Read says that the stream has ended.
func TestLost(t *testing.T) {
	for name, lost := range map[string]bool{"reset": true, "end": false} {
		t.Run(name, func(t *testing.T) {
			ours, peer := testkit.TCPPair(t)
			if lost {
				written := blockedWrite(t, ours)
				peer.SetLinger(0)
				peer.Close()
				if err := <-written; err == nil {
					t.Error("Write = nil, want the reset")
				}
			} else {
				peer.CloseWrite()
			}
			if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("Read = %v, want EOF: the kernel tells of a reset once", err)
			}
			if got := Lost(ours); got != lost {
				t.Errorf("Lost = %v, want %v", got, lost)
			}
		})
	}
}

// blockedWrite writes to c until nothing more fits, and sends the error that ends the
// writing.
func blockedWrite(t *testing.T, c net.Conn) <-chan error {
	t.Helper()
	written := make(chan error, 1)
	begun := make(chan bool)
	go func() {
		close(begun)
		_, err := c.Write(make([]byte, 64<<20))
		written <- err
	}()
	<-begun
	return written
}
