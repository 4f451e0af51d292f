package httpproxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/testkit"
)

// uploading is an exchange whose upload of five bytes has begun, seen from
// both ends.
type uploading struct {
	*exchange
	client *net.TCPConn // what the client holds
	server *net.TCPConn // what the origin holds
}

func startUpload(t *testing.T, bodyTimeout time.Duration) uploading {
	t.Helper()
	client, near := testkit.TCPPair(t)
	server, far := testkit.TCPPair(t)
	s := newSession(&Proxy{BodyTimeout: bodyTimeout}, near)
	io.WriteString(client, "PUT http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
	req, err := s.head.ReadRequest(s.r, DefaultMaxHeaders)
	if err != nil {
		t.Fatal(err)
	}
	x := newExchange(s, origin.New(far, flow.Target{}, "", 0), req, &flow.Record{})
	if err := x.send(); err != nil {
		t.Fatal(err)
	}
	if x.upload.ended == nil {
		t.Fatal("no upload was started")
	}
	t.Cleanup(func() { x.release(origin.Broken) })
	return uploading{x, client, server}
}

// received returns the body that the origin gets.
func (u uploading) received(t *testing.T) string {
	t.Helper()
	u.server.SetReadDeadline(time.Now().Add(30 * time.Second))
	b, _ := io.ReadAll(u.server)
	_, body, ok := strings.Cut(string(b), "\r\n\r\n")
	if !ok {
		t.Errorf("the origin got %q, want a whole head", b)
	}
	return body
}

// TestUploadWhole checks that done answers as often as it is asked.
func TestUploadWhole(t *testing.T) {
	u := startUpload(t, 0)
	if whole, err := u.upload.done(0); whole || err != nil {
		t.Errorf("done before the body = %v, %v; want false, nil", whole, err)
	}
	io.WriteString(u.client, "hello")
	for range 2 {
		if whole, err := u.upload.done(30 * time.Second); !whole || err != nil {
			t.Errorf("done = %v, %v; want true, nil", whole, err)
		}
	}
	if u.rec.Up != 5 {
		t.Errorf("the record counts %d bytes up, want 5", u.rec.Up)
	}
	if !u.release(origin.Broken) {
		t.Error("release = false, want that the whole request was read")
	}
	if got := u.received(t); got != "hello" {
		t.Errorf("the origin got %q, want %q", got, "hello")
	}
}

// TestUploadStop checks that stop ends a read in progress, closes the origin's
// connection, and leaves the client's one usable, without a deadline.
func TestUploadStop(t *testing.T) {
	u := startUpload(t, 0)
	io.WriteString(u.client, "hel")
	if u.release(origin.Broken) {
		t.Error("release = true in the middle of the request, want false")
	}
	if got := u.received(t); got != "hel" && got != "" {
		t.Errorf("the origin got %q, want a part of %q", got, "hel")
	}
	if whole, err := u.upload.done(0); whole || err == nil {
		t.Errorf("done after stop = %v, %v; want false and the reason", whole, err)
	}
	io.WriteString(u.client, "lo")
	b := make([]byte, 2)
	if _, err := io.ReadAtLeast(u.s.c, b, 1); err != nil {
		t.Errorf("a later read from the client: error %v, want none", err)
	}
}

// TestStatusAfterSlowBody checks that a body that stops after its response has
// begun does not change the status in the record: the client has got that of the
// origin.
func TestStatusAfterSlowBody(t *testing.T) {
	u := startUpload(t, 0)
	u.client.CloseWrite()
	<-u.upload.ended
	u.upload.err = &wire.ReadError{Err: os.ErrDeadlineExceeded}
	u.respond(&wire.Response{Response: &http.Response{
		Status:        "200 OK",
		StatusCode:    http.StatusOK,
		ContentLength: 5,
		Body:          io.NopCloser(iotest.ErrReader(net.ErrClosed)),
	}})
	if class := flow.ClassOf(u.rec.Err); u.rec.Status != http.StatusOK || class != flow.Timeout {
		t.Errorf("the record has status %d and class %v, want %d and %v", u.rec.Status, class, http.StatusOK, flow.Timeout)
	}
}

// TestResetAtTheEnd checks that a reset does not look like the end of a response that ends with
// its connection, although the kernel has told the upload of the reset, and tells the
// response that the stream has ended.
func TestResetAtTheEnd(t *testing.T) {
	u := startUpload(t, 0)
	io.WriteString(u.server, "HTTP/1.0 200 OK\r\n\r\npart")
	resp, err := u.readHead()
	if err != nil {
		t.Fatal(err)
	}
	socket.Abort(u.server)
	testkit.Eventually(t, "the upload to get the reset", func() bool {
		_, err := u.o.Conn.Write([]byte("x"))
		return errors.Is(err, syscall.ECONNRESET)
	})
	u.respond(resp)
	if class := flow.ClassOf(u.rec.Err); class != flow.Reset {
		t.Errorf("the record has class %v after %d bytes, want %v", class, u.rec.Down, flow.Reset)
	}
}

// TestUploadBroken checks that the origin's connection is closed when the
// client does not send its whole body, and that the cause is known by then.
func TestUploadBroken(t *testing.T) {
	for _, c := range []struct {
		name        string
		bodyTimeout time.Duration
		do          func(client *net.TCPConn)
		want        error
		class       flow.Class
		status      int
	}{
		{"half_closed", 0, func(client *net.TCPConn) { client.CloseWrite() }, io.ErrUnexpectedEOF, flow.BadRequest, 0},
		{"reset", 0, func(client *net.TCPConn) { socket.Abort(client) }, syscall.ECONNRESET, flow.Canceled, 0},
		{"too_slow", 20 * time.Millisecond, func(*net.TCPConn) {}, os.ErrDeadlineExceeded, flow.Timeout, http.StatusRequestTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := startUpload(t, c.bodyTimeout)
			c.do(u.client)
			_, err := http.ReadResponse(u.o.R, u.req) // ends as the origin's connection is closed
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("the response: error %v, want %v", err, net.ErrClosed)
			}
			if whole, err := u.upload.done(0); whole || !errors.Is(err, c.want) {
				t.Errorf("done = %v, %v; want false, %v", whole, err, c.want)
			}
			if fe, status := u.failure(err); fe.Class != c.class || status != c.status {
				t.Errorf("failure = %v, status %d; want %v, status %d", fe.Class, status, c.class, c.status)
			}
		})
	}
}
