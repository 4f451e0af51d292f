package inbound

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestPanicOfAPeersConnection checks that a panic ends the connections of one peer, and
// is reported with its stack where the replica logs and counts panics.
func TestPanicOfAPeersConnection(t *testing.T) {
	for name, broken := range map[string]panicConn{"read": {read: true}, "write": {}} {
		t.Run(name, func(t *testing.T) {
			var reported []error
			ctx := flow.WithPanics(t.Context(), func(err error) { reported = append(reported, err) })
			host, peer := net.Pipe()
			defer peer.Close()
			broken.Conn, _ = net.Pipe()
			if broken.read {
				(&Host{Ctx: ctx}).copyAndEnd(host, &broken)
			} else {
				go io.WriteString(peer, "x")
				(&Host{Ctx: ctx}).copyAndEnd(&broken, host)
			}
			if len(reported) != 1 {
				t.Fatalf("%d panics were reported, want 1", len(reported))
			}
			if p, ok := errors.AsType[*flow.Panic](reported[0]); !ok || !strings.Contains(p.Stack, "panicConn") {
				t.Errorf("reported %v, want a panic with its stack", reported[0])
			}
			if _, err := peer.Read(make([]byte, 1)); err == nil {
				t.Error("the other connection is open, want it closed")
			}
		})
	}
}

// panicConn is a connection that panics on each read or write.
type panicConn struct {
	net.Conn
	read bool
}

func (c *panicConn) Read([]byte) (int, error)  { panic("boom in Read") }
func (c *panicConn) Write([]byte) (int, error) { panic("boom in Write") }
func (c *panicConn) CloseWrite() error         { return nil }
