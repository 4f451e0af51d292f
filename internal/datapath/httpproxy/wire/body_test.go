package wire

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPace checks that a body waits for its rate, and that Stop ends the wait.
func TestPace(t *testing.T) {
	for name, stopped := range map[string]bool{"moves": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stop := make(chan struct{})
				body := Body{
					Reader: strings.NewReader("hello"),
					Source: bufio.NewReader(strings.NewReader("")),
					Pace: func(up bool, n int) time.Duration {
						if !up || n != 5 {
							t.Errorf("Pace(%v, %d), want (true, 5)", up, n)
						}
						return time.Hour
					},
					Up:   true,
					Stop: stop,
				}
				if stopped {
					time.AfterFunc(time.Minute, func() { close(stop) })
				}
				var sent bytes.Buffer
				begin := time.Now()
				_, err := body.CopyTo(bufio.NewWriter(&sent))
				took := time.Since(begin)
				switch {
				case stopped && (!errors.Is(err, net.ErrClosed) || sent.Len() > 0 || took != time.Minute):
					t.Errorf("CopyTo = %v after %v, %q sent; want %v after 1m and nothing", err, took, sent.String(), net.ErrClosed)
				case !stopped && (err != nil || sent.String() != "hello" || took != time.Hour):
					t.Errorf("CopyTo = %v after %v, %q sent; want nil after 1h and the body", err, took, sent.String())
				}
			})
		})
	}
}
