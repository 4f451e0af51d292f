package httpproxy

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// TestHostOfOrigin checks the Host field that an origin gets, with and without a
// proxy setting of the client.
func TestHostOfOrigin(t *testing.T) {
	hosts := make(chan string, 1)
	addr := testkit.ServeConns(t, func(c *net.TCPConn) {
		answerAll(c, func(req *http.Request, _ *bufio.Reader) string {
			hosts <- req.Host
			return "HTTP/1.1 204 No Content\r\n\r\n"
		})
	})
	proxy := startProxy(t, addr, nil)
	web := startProxy(t, addr, func(p *Proxy) {
		p.Front = flow.Web
		p.Target = target.ByHost(80)
	})
	for _, c := range []struct{ name, spelling, want string }{
		{"decimal", "168559364", "10.12.3.4"},
		{"trailing_dot", "10.12.3.4.", "10.12.3.4"},
		{"port_with_zero", "10.12.3.4:08090", "10.12.3.4:8090"},
		{"default_port", "Api.corp.example:80", "api.corp.example"},
		{"empty_port", "api.corp.example:", "api.corp.example"},
		{"ipv6", "[FD00::0:4]:8080", "[fd00::4]:8080"},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy.client(t, victim).ask(t, fmt.Sprintf("GET http://%s/ HTTP/1.1\r\nHost: other.example\r\n\r\n", c.spelling))
			if got := <-hosts; got != c.want {
				t.Errorf("absolute-form: the origin gets Host %q, want %q", got, c.want)
			}
			web.client(t, victim).ask(t, fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n\r\n", c.spelling))
			if got := <-hosts; got != c.want {
				t.Errorf("web: the origin gets Host %q, want %q", got, c.want)
			}
		})
	}
}
