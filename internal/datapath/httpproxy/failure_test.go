package httpproxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// TestCause checks each cause alone.
func TestCause(t *testing.T) {
	malformed := errors.New("malformed chunked encoding")
	for _, c := range []struct {
		name   string
		e      evidence
		class  flow.Class
		status int
	}{
		{"cut", evidence{err: net.ErrClosed, cut: true}, flow.Cut, 0},
		{"upload_reset", evidence{err: net.ErrClosed, upload: readError(syscall.ECONNRESET)}, flow.Canceled, 0},
		{"upload_closed", evidence{err: net.ErrClosed, upload: readError(net.ErrClosed)}, flow.Canceled, 0},
		{"upload_too_slow", evidence{err: net.ErrClosed, upload: readError(os.ErrDeadlineExceeded)}, flow.Timeout, http.StatusRequestTimeout},
		{"upload_malformed", evidence{err: net.ErrClosed, upload: readError(malformed)}, flow.BadRequest, 0},
		{"upload_short", evidence{err: net.ErrClosed, upload: readError(io.ErrUnexpectedEOF)}, flow.BadRequest, 0},
		{"client_hung_up", evidence{err: net.ErrClosed, left: true}, flow.Canceled, 0},
		{"client_takes_nothing", evidence{err: &wire.WriteError{Err: syscall.EPIPE}}, flow.Canceled, 0},
		{"bad_response", evidence{err: errHeadTooLong}, flow.BadResponse, 0},
		{"origin_vanished", evidence{err: os.NewSyscallError("read", syscall.ETIMEDOUT)}, flow.Timeout, 0},
		{"origin_silent", evidence{err: os.ErrDeadlineExceeded}, flow.Idle, 0},
		{"origin_closed", evidence{err: io.ErrUnexpectedEOF}, flow.Reset, 0},
		{"origin_takes_nothing", evidence{err: io.EOF, upload: &wire.WriteError{Err: syscall.EPIPE}}, flow.Reset, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cause, err := c.e.cause()
			if cause.class != c.class || cause.status != c.status {
				t.Errorf("cause = %v, status %d; want %v, status %d", cause.class, cause.status, c.class, c.status)
			}
			want := c.e.err
			if cause.upload {
				want = c.e.upload
			}
			if err != want {
				t.Errorf("error %v, want %v", err, want)
			}
		})
	}
}

// TestCauseComesBeforeItsEffects checks that a cause is not mistaken for what
// it brings about.
func TestCauseComesBeforeItsEffects(t *testing.T) {
	for _, c := range []struct {
		name string
		e    evidence
		want flow.Class
	}{
		{"a_cut_ends_the_upload", evidence{err: net.ErrClosed, upload: readError(net.ErrClosed), cut: true}, flow.Cut},
		{"a_cut_ends_the_client", evidence{err: &wire.WriteError{Err: syscall.EPIPE}, left: true, cut: true}, flow.Cut},
		{"a_slow_upload_ends_the_origin", evidence{err: os.ErrDeadlineExceeded, upload: readError(os.ErrDeadlineExceeded)}, flow.Timeout},
		{"a_malformed_upload_ends_the_origin", evidence{err: syscall.ECONNRESET, upload: readError(errors.New("x"))}, flow.BadRequest},
		{"a_client_that_left_ends_the_origin", evidence{err: &badResponse{io.ErrUnexpectedEOF}, left: true}, flow.Canceled},
		{"what_the_origin_said_comes_before_its_end", evidence{err: &badResponse{os.ErrDeadlineExceeded}}, flow.BadResponse},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := c.e.cause(); got.class != c.want {
				t.Errorf("cause = %v, want %v", got.class, c.want)
			}
		})
	}
}

func readError(err error) error { return fmt.Errorf("body: %w", &wire.ReadError{Err: err}) }
