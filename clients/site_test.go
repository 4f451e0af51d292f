//go:build clients && linux

package clients

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/miekg/dns"
	"golang.org/x/crypto/ssh"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// Names behind the tailnet.
const (
	shop    = "shop." + testnet.Zone    // the origin
	denied  = "denied." + testnet.Zone  // a rule denies it
	missing = "missing." + testnet.Zone // does not exist
	refused = "refused." + testnet.Zone // nothing listens there
)

// resolverAddr is the address of the resolver that programs ask, on port 53.
const resolverAddr = "127.0.0.53"

// site is a tailnet with an origin, and a replica in front of it.
type site struct {
	cloud   *testnet.Cloud
	proxy   string // address of the replica's proxy port
	dir     string // of the test
	ca      string // file of the origin's authority
	payload []byte // 10 MiB, in ASCII
	file    string // has the payload
	log     testkit.Buffer
	asked   *recorder

	conns atomic.Int64 // connections that the origin has got

	forward map[string]string // addresses of ports of forward, by name
}

// newSite starts a site, which runs until the test ends. forward has the targets of
// ports of forward.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), asked: startRecorder(t), forward: map[string]string{}}
	os.Chmod(s.dir, 0o755) // other users run programs here
	ctx := testkit.Within(t, 2*time.Minute)
	tailnet, err := testnet.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tailnet.Close() })
	tailnet.SetDNSRoutes(map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}})
	s.cloud, err = tailnet.StartCloud(ctx, "cloud", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cloud.Close() })
	seed := make([]byte, 5<<10)
	rand.Read(seed)
	s.payload = bytes.Repeat([]byte(hex.EncodeToString(seed)), 1<<10)
	s.file = filepath.Join(s.dir, "payload")
	s.ca = filepath.Join(s.dir, "ca.pem")
	s.startOrigin(t)
	if err := os.WriteFile(s.file, s.payload, 0o644); err != nil {
		t.Fatal(err)
	}
	s.startReplica(t, tailnet)
	return s
}

// startReplica starts the replica.
func (s *site) startReplica(t *testing.T, tailnet *testnet.Net) {
	t.Helper()
	conf := filepath.Join(s.dir, "pods-resolv.conf") // no resolver is there
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Listen.Proxy = "127.0.0.1:0"
	cfg.Listen.Admin = ""
	cfg.Tailnet.Hostname = "gateway"
	cfg.Tailnet.ControlURL = tailnet.URL()
	cfg.Tailnet.AuthKey = testnet.AuthKey
	cfg.Dial.Timeout = config.Duration(20 * time.Second)
	cfg.Drain = config.Drain{}
	cfg.Policy.Rules = []config.Rule{{Name: "not-this-one", Names: []string{denied}, Action: "deny"}}
	for name, target := range s.forwardTargets(t) {
		addr := testkit.FreePorts(t, 1)[0]
		s.forward[name] = addr
		cfg.Forward = append(cfg.Forward, config.ForwardPort{Listen: addr, Target: target})
	}
	ctx := context.WithoutCancel(t.Context())
	gw, err := gateway.New(ctx, cfg, gateway.Options{Log: slog.New(slog.NewJSONHandler(&s.log, nil)), ResolvConf: conf})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(run, run) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("gateway: %v", err)
		}
	})
	if err := gw.Wait(testkit.Within(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	s.proxy = gw.Addr().String()
}

// flows returns the flow lines so far whose target has this host.
func (s *site) flows(host string) (list []map[string]any) {
	for line := range strings.Lines(s.log.String()) {
		var entry struct {
			Msg  string
			Flow map[string]any
		}
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "flow" {
			continue
		}
		if target, _ := entry.Flow["target"].(string); strings.HasPrefix(target, host+":") {
			list = append(list, entry.Flow)
		}
	}
	return list
}

// startOrigin starts the servers of the origin: HTTP, HTTPS with gRPC and WebSocket,
// git, and SSH.
func (s *site) startOrigin(t *testing.T) {
	t.Helper()
	host := s.cloud.NewHost()
	for _, name := range []string{shop, denied, refused} {
		s.cloud.SetRecord(name, host)
	}
	s.cloud.SetRecord(refused, s.cloud.NewHost())
	cert, ca, err := testnet.Certificate(shop, denied, missing, refused)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.ca, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	newServer := func() *http.Server {
		server := &http.Server{
			Handler:   s.handler(),
			ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
			ConnState: func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					s.conns.Add(1)
				}
			},
		}
		t.Cleanup(func() { server.Close() })
		return server
	}
	plain := s.cloud.Listen(netip.AddrPortFrom(host, 80))
	secure := s.cloud.Listen(netip.AddrPortFrom(host, 443))
	go newServer().Serve(plain) // both end with Close
	go newServer().ServeTLS(secure, "", "")
	s.startSSH(t, netip.AddrPortFrom(host, 22))
}

// handler is what the origin does with requests.
func (s *site) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/small/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "answer %s\n", r.URL.Path) })
	m.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) { w.Write(s.payload) })
	m.HandleFunc("/same", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b)
	})
	m.HandleFunc("/ws", serveWebSocket)
	m.HandleFunc("/clients.Echo/Send", serveGRPC)
	m.HandleFunc("/page/", servePage)
	m.Handle("/git/", &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend",
		Root: "/git",
		Env:  []string{"GIT_PROJECT_ROOT=" + filepath.Join(s.dir, "git"), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=me", "HOME=" + s.dir},
	})
	return m
}

// serveWebSocket answers each message: a short one with "answer", a long one with itself.
func serveWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(64 << 20)
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if len(b) < 1000 {
			b = append([]byte("answer "), append(b, '\n')...)
		}
		if err := c.Write(r.Context(), kind, b); err != nil {
			return
		}
	}
}

// serveGRPC is the method Send of tools/clients/echo.proto: a message with one text. It
// answers as serveWebSocket does.
func serveGRPC(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	b, err := io.ReadAll(r.Body)
	if err != nil || len(b) < 5 {
		w.Header().Set("Grpc-Status", "13")
		return
	}
	const field = 1<<3 | 2 // number 1, with a length
	size, n := binary.Uvarint(b[6:])
	if b[5] != field || n <= 0 || uint64(len(b)) != 6+uint64(n)+size {
		w.Header().Set("Grpc-Status", "3")
		return
	}
	text := string(b[6+n:])
	if len(text) < 1000 {
		text = "answer " + text
	}
	message := append(binary.AppendUvarint([]byte{field}, uint64(len(text))), text...)
	w.Write(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))))
	w.Write(message)
	w.Header().Set("Grpc-Status", "0")
}

// servePage serves a page for a browser. Its script gets three answers, or sends 10 MiB
// and gets them back, and writes what it got into the page.
func servePage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if strings.HasSuffix(r.URL.Path, "/large") {
		io.WriteString(w, `<!doctype html><title>large</title><pre id=out></pre><script>
const sent = "0123456789abcdef".repeat(655360);
const request = new XMLHttpRequest();
request.open("POST", "/same", false);
request.send(sent);
document.getElementById("out").textContent = request.responseText === sent ? "all " + sent.length + " bytes came back" : "other bytes came back";
</script>`)
		return
	}
	io.WriteString(w, `<!doctype html><title>Behind the tailnet</title><style>body{font:20px sans-serif;margin:3em}</style>
<h1>A page behind the tailnet</h1><p>The browser reached `+r.Host+` through Pando.</p><pre id=out></pre><script>
for (const n of [1, 2, 3]) {
  const request = new XMLHttpRequest();
  request.open("GET", "/small/" + n, false);
  request.send();
  document.getElementById("out").textContent += request.responseText;
}
</script>`)
}

// startSSH serves SSH: "get PATH" is answered, and "same" returns what it is sent.
func (s *site) startSSH(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	conf := &ssh.ServerConfig{NoClientAuth: true}
	conf.AddHostKey(signer)
	s.cloud.Handle(addr, func(c net.Conn) {
		defer c.Close()
		conn, channels, requests, err := ssh.NewServerConn(c, conf)
		if err != nil {
			return
		}
		defer conn.Close()
		go ssh.DiscardRequests(requests) // ends with conn
		for channel := range channels {
			ch, requests, err := channel.Accept()
			if err != nil {
				return
			}
			go serveSession(ch, requests) // ends with conn
		}
	})
}

func serveSession(ch ssh.Channel, requests <-chan *ssh.Request) {
	defer ch.Close()
	for r := range requests {
		if r.Type != "exec" {
			r.Reply(false, nil)
			continue
		}
		r.Reply(true, nil)
		var exec struct{ Command string }
		ssh.Unmarshal(r.Payload, &exec)
		if path, ok := strings.CutPrefix(exec.Command, "get "); ok {
			fmt.Fprintf(ch, "answer %s\n", path)
		} else {
			b, _ := io.ReadAll(ch)
			ch.Write(b)
		}
		ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
		return
	}
}

// recorder is a DNS server without names. It keeps what it was asked.
type recorder struct {
	mu    sync.Mutex
	names map[string]bool
}

func startRecorder(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{names: map[string]bool{}}
	packets, err := net.ListenPacket("udp", resolverAddr+":53")
	if err != nil {
		t.Fatal(err)
	}
	streams, err := net.Listen("tcp", resolverAddr+":53")
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: r}, {Listener: streams, Handler: r}} {
		go server.ActivateAndServe() // ends with Shutdown
		t.Cleanup(func() { server.Shutdown() })
	}
	return r
}

// ServeDNS implements dns.Handler.
func (r *recorder) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetRcode(q, dns.RcodeNameError)
	if len(q.Question) > 0 {
		r.mu.Lock()
		r.names[strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))] = true
		r.mu.Unlock()
	}
	w.WriteMsg(m)
}

// forget empties the record.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.names)
}

// has reports whether name was asked since forget.
func (r *recorder) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[name]
}
