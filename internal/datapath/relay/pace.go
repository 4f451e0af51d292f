package relay

import (
	"io"
	"net"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// pacedChunk is how many bytes are written at a time to a connection with a rate, so
// that they move smoothly.
const pacedChunk = 16 << 10

// pacedWriter delays what is written to a connection.
type pacedWriter struct {
	dst  io.Writer
	take func(n int) (wait time.Duration) // takes n bytes of the rate
	stop <-chan struct{}                  // closed when the pair fails
}

// Write writes b in chunks, each when its bytes may move. It returns net.ErrClosed if
// the pair fails meanwhile.
func (w *pacedWriter) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		chunk := b[n:min(len(b), n+pacedChunk)]
		if !flow.Sleep(w.stop, w.take(len(chunk))) {
			return n, net.ErrClosed
		}
		var written int
		written, err = w.dst.Write(chunk)
		n += written
	}
	return n, err
}

// writerTo returns what writes to dst: dst itself, unless bytes of the pair have a
// rate.
func (p *pair) writerTo(dst side) io.Writer {
	if p.pace == nil {
		return dst.conn
	}
	up := dst.conn == p.Target
	return &pacedWriter{
		dst:  dst.conn,
		take: func(n int) time.Duration { return p.pace(up, n) },
		stop: p.stop,
	}
}
