package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
)

func TestSilentTarget(t *testing.T) { userspace(t, ownTailnet, silentTarget) }

// silentTarget checks that a client which dials a target that does not answer, again
// and again, costs other clients nothing, and that the replica says which target it is.
func silentTarget(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Limits = config.Limits{Dials: 64}
		c.Dial.Timeout = config.Duration(time.Second)
	})
	dead := w.deadTarget(t, r).String()
	ask := func(ctx context.Context, from byte, target string) (code int, body string, err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
		c, err := d.DialContext(ctx, "tcp", r.addr)
		if err != nil {
			return 0, "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(readTime))
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 0, "", err
		}
		if resp.StatusCode != 200 {
			b, _ := io.ReadAll(resp.Body)
			body = string(b)
		}
		return resp.StatusCode, body, nil
	}
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	for range 60 {
		flood.Go(func() {
			for ctx.Err() == nil {
				ask(ctx, 9, dead)
				time.Sleep(50 * time.Millisecond) // a refused client tries again
			}
		})
	}
	innocent := func() {
		t.Helper()
		if code, body, err := ask(ctx, 2, w.origin.host); code != 200 {
			t.Errorf("another client got %d %q, %v; want 200", code, body, err)
		}
	}
	testkit.Eventually(t, "a refusal because of the client's share", func() bool {
		innocent()
		return value(t, r, `pando_limit_refusals_total{limit="dials_share"}`) > 0
	})
	testkit.Eventually(t, "the silent target in the readiness", func() bool {
		innocent()
		code, body := r.admin(t, "/readyz?verbose")
		if strings.Contains(body, dead) {
			t.Fatalf("every pod can read a target of another client in %q", body)
		}
		return code == 200 && strings.Contains(body, "[+]dials ok: ") && strings.Contains(body, "only once a second: 1;")
	})
	testkit.Eventually(t, "the silent target in the status", func() bool {
		innocent()
		code, body := r.admin(t, "/status?format=json")
		return code == 200 && strings.Contains(body, dead)
	})
	testkit.Eventually(t, "a refusal because of the target", func() bool {
		innocent()
		code, body, _ := ask(ctx, 3, dead)
		return code == 504 && strings.Contains(body, "tried once a second") && value(t, r, `pando_limit_refusals_total{limit="target"}`) > 0
	})
}
