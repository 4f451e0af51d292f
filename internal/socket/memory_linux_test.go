package socket

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// fillUp writes to c until it takes no more, and returns how much it took.
func fillUp(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	b := make([]byte, 64<<10)
	for {
		c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		m, err := c.Write(b)
		n += m
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestBoundUnsent checks that a peer that reads nothing costs the sender a bounded
// sum, on accepted connections too, and that Held sees it.
func TestBoundUnsent(t *testing.T) {
	_, server := connect(t, ListenConfig(false, 0), net.Dialer{})
	before := Held(server)
	n := fillUp(t, server)
	held := Held(server) - before
	const most = 4 * maxUnsent // the kernel counts its blocks, and the last of them may be a big one
	if held < maxUnsent/2 || held > most {
		t.Errorf("Held grows by %d, want between %d and %d", held, maxUnsent/2, most)
	}
	t.Logf("MEASURED the peer took %d KiB; %d KiB are held for it", n>>10, held>>10)
}

// TestShrink checks that a connection that is shrunk holds little for a peer that
// sends as much as it can.
func TestShrink(t *testing.T) {
	sender, c := testkit.TCPPair(t)
	Shrink(c, 16<<10)
	fillUp(t, sender)
	if held := Held(c); held > 64<<10 {
		t.Errorf("a connection shrunk to 16 KiB holds %d bytes, want at most 64 KiB", held)
	}
}
