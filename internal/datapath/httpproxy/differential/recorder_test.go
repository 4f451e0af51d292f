package differential

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// quiet is how long a connection is silent before its peer has said everything. Peers
// that wait for more of a request never end by themselves.
const quiet = 400 * time.Millisecond

// request is what an origin has read.
type request struct {
	text  string // for the table
	host  string
	body  int
	whole bool
}

// recorder is an origin that notes what it reads, and answers every request alike.
type recorder struct {
	addr   netip.AddrPort
	answer string // raw; "" answers 200; guarded by mu

	mu   sync.Mutex
	seen []request
}

// newRecorder serves an origin on loopback until the test ends.
func newRecorder(t *testing.T, answer string) *recorder {
	t.Helper()
	o := &recorder{answer: answer}
	o.addr = testkit.ServeConns(t, o.serve)
	return o
}

// serve reads requests and answers them.
func (o *recorder) serve(c *net.TCPConn) {
	defer c.Close()
	br := bufio.NewReader(c)
	for {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		req, err := http.ReadRequest(br)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
				o.add(request{text: "unreadable: " + clean(err.Error())})
			}
			return
		}
		body, err := io.ReadAll(req.Body)
		o.add(request{
			text:  o.describe(req, body, err),
			host:  req.Host,
			body:  len(body),
			whole: err == nil,
		})
		if err != nil {
			return
		}
		o.mu.Lock()
		answer := o.answer
		o.mu.Unlock()
		if answer != "" {
			io.WriteString(c, answer)
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

func (o *recorder) add(r request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, r)
}

// take returns the requests that have been read so far.
func (o *recorder) take() []request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen)
}

// describe writes a request in one line: its first line, its Host, its framing, its
// body, and the fields of the corpus.
func (o *recorder) describe(req *http.Request, body []byte, err error) string {
	uri := strings.ReplaceAll(req.RequestURI, o.addr.String(), "{origin}")
	host := strings.ReplaceAll(req.Host, o.addr.String(), "{origin}")
	s := req.Method + " " + uri
	if host != "{origin}" {
		s += ", Host " + strings.ReplaceAll(host, fmt.Sprint(o.addr.Port()), "{port}")
	}
	if len(req.TransferEncoding) > 0 {
		s += ", chunked"
	}
	names := []string{}
	for name := range req.Header {
		if strings.HasPrefix(name, "X") && !strings.HasPrefix(name, "X-Forwarded") || name == "Expect" || name == "Upgrade" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		s += ", " + name + ": " + strings.Join(req.Header[name], " | ")
	}
	if len(body) > 0 {
		s += ", body " + fmt.Sprintf("%.20q", body)
	}
	for name := range req.Trailer {
		if req.Trailer[name] != nil {
			s += ", trailer " + name
		}
	}
	if err != nil {
		s += ", cut"
	}
	return clean(s)
}

// clean makes text fit for a cell of a table.
func clean(s string) string {
	s = strings.Trim(fmt.Sprintf("%q", s), `"`)
	return strings.NewReplacer("|", "\\|", "`", "'", `\"`, `"`).Replace(s)
}

// speak sends raw, and returns what comes until the other end closes or is quiet.
func speak(c *net.TCPConn, raw string) string {
	io.WriteString(c, raw)
	var got strings.Builder
	buf := make([]byte, 4096)
	for wait := 3 * quiet; ; wait = quiet {
		c.SetReadDeadline(time.Now().Add(wait))
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			return got.String()
		}
	}
}
