package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// proxyVariables name the same proxy in every variable that a program may read.
func proxyVariables(url string) func(config.Config, *gateway.Options) {
	return func(_ config.Config, o *gateway.Options) {
		for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
			o.Environ = append(o.Environ, name+"="+url)
		}
	}
}

func TestFlowsWithoutPodProxy(t *testing.T) { eachMode(t, sharedTailnet, flowsWithoutPodProxy) }

// flowsWithoutPodProxy checks that no flow uses the proxy of the pod's own variables:
// neither through the tunnel nor through the pod's network. The control server and the
// relay are on loopback here, so they do not use it either.
func flowsWithoutPodProxy(t *testing.T, w *world) {
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	go func() {
		defer close(asked)
		c, err := proxy.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		line, _ := bufio.NewReader(c).ReadString('\n')
		asked <- line
	}()
	direct, err := net.Listen("tcp", net.JoinHostPort(hostAddr(t, w), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	go http.Serve(direct, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "direct") }))
	r := w.startWith(t, func(c *config.Config) { c.Policy.Direct = "any" }, proxyVariables("http://"+proxy.Addr().String()))
	for _, target := range []string{testnet.APIName + ":80", testnet.APIAddr.String() + ":80", direct.Addr().String()} {
		get := fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target)
		_, tunnel := r.connectTo(t, target, get)
		plain := r.raw(t)
		fmt.Fprint(plain, strings.Replace(get, "GET /", "GET http://"+target+"/", 1))
		for front, br := range map[string]*bufio.Reader{"connect": tunnel, "http": bufio.NewReader(plain)} {
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%s to %s: %v, %v; want 200", front, target, resp, err)
			}
		}
	}
	proxy.Close()
	if line, ok := <-asked; ok {
		t.Errorf("the pod's proxy got %q, want nothing", line)
	}
}

func TestPodProxyOfOwnFleet(t *testing.T) { userspace(t, sharedTailnet, podProxyOfOwnFleet) }

// podProxyOfOwnFleet checks that a replica whose variables name itself, or an address of
// its fleet, says so and joins its tailnet without them.
func podProxyOfOwnFleet(t *testing.T, w *world) {
	own := testkit.FreePorts(t, 1)[0]
	for name, url := range map[string]string{
		"its_port":          "http://" + own,
		"localhost":         strings.Replace("http://"+own, "127.0.0.1", "localhost", 1),
		"an_address_of_all": "http://ann:s3cret@192.0.2.7:1055",
	} {
		t.Run(name, func(t *testing.T) {
			r := w.startWith(t, func(c *config.Config) {
				c.Listen.Proxy = own
				c.Listen.Replicas = []config.FleetHost{{Addr: testnet.APIAddr}, {Addr: netip.MustParseAddr("192.0.2.7")}}
			}, proxyVariables(url))
			for _, variable := range []string{"https_proxy", "http_proxy"} {
				if text := r.flows.text(); !strings.Contains(text, `"level":"WARN","msg":"proxy variable leads back to this fleet","variable":"`+variable+`"`) || strings.Contains(text, "s3cret") {
					t.Errorf("the log says of %s\n%s", variable, text)
				}
			}
		})
	}
}

// TestPodProxyMistake checks that the log names a variable that cannot be used.
func TestPodProxyMistake(t *testing.T) { userspace(t, sharedTailnet, podProxyMistake) }

func podProxyMistake(t *testing.T, w *world) {
	r := w.startWith(t, nil, proxyVariables("socks5://ann:s3cret@192.0.2.9:1080"))
	if text := r.flows.text(); !strings.Contains(text, `"msg":"proxy variable ignored","variable":"https_proxy","err":"the scheme is not supported: write the http:// or https:// URL`) || strings.Contains(text, "s3cret") {
		t.Errorf("the log says\n%s", text)
	}
}
