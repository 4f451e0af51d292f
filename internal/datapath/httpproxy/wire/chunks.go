package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
)

// Chunks reads a body in chunks from R, and the trailer section behind it (RFC 9112
// section 7.1). It accepts and rejects what net/http does. That reader waits until a
// chunk is whole or the buffer is full. Chunks returns what has come: a Read waits only
// while it has nothing to return.
type Chunks struct {
	R *bufio.Reader
	// Trailer has the trailer fields once Read has returned io.EOF; nil without any.
	Trailer http.Header

	order  Order // of Trailer
	state  chunkState
	left   uint64 // bytes of the chunk in progress
	excess int64  // bytes of framing beyond what is normal
	err    error  // ends the body
}

// BodyReader returns what reads the body of a message from br, with encodings as
// net/http has parsed them. plain reads a body that is not in chunks.
func BodyReader(encodings []string, plain io.Reader, br *bufio.Reader) io.Reader {
	if len(encodings) == 0 {
		return plain
	}
	return &Chunks{R: br} // net/http accepts no other encoding
}

// chunkState is what comes next in a body in chunks.
type chunkState uint8

const (
	chunkSize    chunkState = iota // a line with a chunk's size
	chunkData                      // bytes of a chunk
	chunkEnd                       // the CRLF behind a chunk
	chunkTrailer                   // the trailer section
)

// The bounds of framing are those of net/http: each chunk may have 16 bytes, and twice as
// many as it has bytes of data. More are counted, up to maxExcess.
const (
	freeFraming = 16
	maxExcess   = 16 << 10
)

var (
	crlf     = []byte("\r\n")
	crlfCRLF = []byte("\r\n\r\n")

	errChunk       = errors.New("malformed chunked encoding")
	errChunkExcess = errors.New("too much framing in chunked encoding")
	errLongTrailer = errors.New("the trailer section is too long, or has no end")
)

// Read reads bytes of the body. The last ones may come together with io.EOF.
func (c *Chunks) Read(b []byte) (n int, err error) {
	for c.err == nil && n < len(b) && (n == 0 || c.ready()) {
		if c.state == chunkData {
			n += c.data(b[n:])
		} else {
			c.err = c.framing()
		}
	}
	return n, c.err
}

// ready reports whether what comes next has been read ahead, so that nothing waits for it.
func (c *Chunks) ready() bool {
	ahead, _ := c.R.Peek(c.R.Buffered())
	switch c.state {
	case chunkData:
		return len(ahead) > 0
	case chunkSize:
		return bytes.IndexByte(ahead, '\n') >= 0
	case chunkEnd:
		return len(ahead) >= len(crlf)
	}
	return bytes.HasPrefix(ahead, crlf) || bytes.Contains(ahead, crlfCRLF)
}

// data reads bytes of a chunk, and returns how many.
func (c *Chunks) data(b []byte) int {
	n, err := c.R.Read(b[:min(uint64(len(b)), c.left)])
	c.left -= uint64(n)
	if c.left == 0 {
		c.state = chunkEnd
	}
	c.err = unexpected(err)
	return n
}

// framing reads what is not data. It returns io.EOF behind the trailer section.
func (c *Chunks) framing() error {
	switch c.state {
	case chunkSize:
		return c.size()
	case chunkEnd:
		end, err := c.R.Peek(len(crlf))
		if err != nil {
			return unexpected(err)
		}
		if !bytes.Equal(end, crlf) {
			return errChunk
		}
		c.R.Discard(len(crlf))
		c.state = chunkSize
		return nil
	}
	if err := c.trailer(); err != nil {
		return unexpected(err)
	}
	return io.EOF
}

// size reads the line with the size of the next chunk.
func (c *Chunks) size() error {
	line, err := c.R.ReadSlice('\n')
	if err != nil {
		return unexpected(err)
	}
	c.excess += int64(len(line))
	line, ended := bytes.CutSuffix(line, crlf) // a bare LF ends no such line
	if !ended || bytes.IndexByte(line, '\r') >= 0 {
		return errChunk
	}
	digits, _, _ := bytes.Cut(bytes.TrimRight(line, " \t"), []byte(";"))
	c.left, err = strconv.ParseUint(string(digits), 16, 64)
	if err != nil || len(digits) > 16 {
		return errChunk
	}
	c.excess -= freeFraming + 2*int64(min(c.left, math.MaxInt32))
	c.excess = max(c.excess, 0)
	if c.excess > maxExcess {
		return errChunkExcess
	}
	c.state = chunkData
	if c.left == 0 {
		c.state = chunkTrailer
	}
	return nil
}

// trailer reads the trailer section, up to the empty line.
func (c *Chunks) trailer() error {
	end, err := c.R.Peek(len(crlf))
	if err != nil {
		return err
	}
	if bytes.Equal(end, crlf) {
		c.R.Discard(len(crlf))
		return nil
	}
	for n := len(crlfCRLF); ; n++ { // its end must fit in R's buffer: this bounds its size
		section, err := c.R.Peek(n)
		if bytes.HasSuffix(section, crlfCRLF) {
			scan := headScan{maxFields: math.MaxInt, lenient: true}
			scan.scan(section)
			c.order = scan.order()
			break
		}
		if err == bufio.ErrBufferFull {
			return errLongTrailer
		}
		if err != nil {
			return err
		}
	}
	fields, err := textproto.NewReader(c.R).ReadMIMEHeader()
	c.Trailer = http.Header(fields)
	return err
}

// unexpected returns err, and io.ErrUnexpectedEOF for io.EOF.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// writeChunk writes p as one chunk.
func writeChunk(w *bufio.Writer, p []byte) (int, error) {
	w.Write(strconv.AppendInt(w.AvailableBuffer(), int64(len(p)), 16))
	w.Write(crlf)
	n, err := w.Write(p)
	w.Write(crlf) // w keeps an error until Flush
	return n, err
}
