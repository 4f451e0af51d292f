package cause

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
		e      Evidence
		class  flow.Class
		status int
	}{
		{"cut", Evidence{Err: net.ErrClosed, Cut: true}, flow.Cut, 0},
		{"upload_reset", Evidence{Err: net.ErrClosed, Upload: readError(syscall.ECONNRESET)}, flow.Canceled, 0},
		{"upload_closed", Evidence{Err: net.ErrClosed, Upload: readError(net.ErrClosed)}, flow.Canceled, 0},
		{"upload_too_slow", Evidence{Err: net.ErrClosed, Upload: readError(os.ErrDeadlineExceeded)}, flow.Timeout, http.StatusRequestTimeout},
		{"upload_malformed", Evidence{Err: net.ErrClosed, Upload: readError(malformed)}, flow.BadRequest, 0},
		{"upload_short", Evidence{Err: net.ErrClosed, Upload: readError(io.ErrUnexpectedEOF)}, flow.BadRequest, 0},
		{"client_hung_up", Evidence{Err: net.ErrClosed, Left: true}, flow.Canceled, 0},
		{"client_takes_nothing", Evidence{Err: &wire.WriteError{Err: syscall.EPIPE}}, flow.Canceled, 0},
		{"bad_response", Evidence{Err: &BadResponse{errors.New("the head is too long")}}, flow.BadResponse, 0},
		{"origin_vanished", Evidence{Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}, flow.Timeout, 0},
		{"origin_silent", Evidence{Err: os.ErrDeadlineExceeded}, flow.Idle, 0},
		{"origin_closed", Evidence{Err: io.ErrUnexpectedEOF}, flow.Reset, 0},
		{"origin_takes_nothing", Evidence{Err: io.EOF, Upload: &wire.WriteError{Err: syscall.EPIPE}}, flow.Reset, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cause, err := c.e.find()
			if cause.class != c.class || cause.status != c.status {
				t.Errorf("cause = %v, status %d; want %v, status %d", cause.class, cause.status, c.class, c.status)
			}
			want := c.e.Err
			if cause.upload {
				want = c.e.Upload
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
		e    Evidence
		want flow.Class
	}{
		{"a_cut_ends_the_upload", Evidence{Err: net.ErrClosed, Upload: readError(net.ErrClosed), Cut: true}, flow.Cut},
		{"a_cut_ends_the_client", Evidence{Err: &wire.WriteError{Err: syscall.EPIPE}, Left: true, Cut: true}, flow.Cut},
		{"a_slow_upload_ends_the_origin", Evidence{Err: os.ErrDeadlineExceeded, Upload: readError(os.ErrDeadlineExceeded)}, flow.Timeout},
		{"a_malformed_upload_ends_the_origin", Evidence{Err: syscall.ECONNRESET, Upload: readError(errors.New("x"))}, flow.BadRequest},
		{"a_client_that_left_ends_the_origin", Evidence{Err: &BadResponse{io.ErrUnexpectedEOF}, Left: true}, flow.Canceled},
		{"what_the_origin_said_comes_before_its_end", Evidence{Err: &BadResponse{os.ErrDeadlineExceeded}}, flow.BadResponse},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := c.e.find(); got.class != c.want {
				t.Errorf("cause = %v, want %v", got.class, c.want)
			}
		})
	}
}

func readError(err error) error { return fmt.Errorf("body: %w", &wire.ReadError{Err: err}) }
