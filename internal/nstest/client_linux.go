package nstest

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
)

// DialFromClient opens a TCP connection to addr from the client's namespace.
func DialFromClient(addr string) (*net.UnixConn, error) {
	c, err := net.Dial("unix", os.Getenv(envClient))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintln(c, addr)
	var status [1]byte
	if _, err := io.ReadFull(c, status[:]); err != nil {
		return nil, fmt.Errorf("dial %s from the client: %w", addr, err)
	}
	c.SetDeadline(time.Time{})
	return c.(*net.UnixConn), nil
}

// ServeLies makes the client a host of the pod network that has the address of
// addr and serves DNS there: it answers every name with Lie. Packets for that
// address go to the client unless a route says otherwise. Its answers reach any
// of our addresses, as behind a node that masquerades. It may be called several
// times, also for the same address.
func ServeLies(addr netip.AddrPort) error { return ServeDNS(addr, netip.MustParseAddr(Lie)) }

// ServeDNS is ServeLies with another address than Lie for every name. A server that
// is already there keeps its answer.
func ServeDNS(addr netip.AddrPort, answer netip.Addr) error {
	if out, err := order("lie " + addr.String() + " " + answer.String()); err != nil || out != "" {
		return fmt.Errorf("lies at %s: %w", addr, cmp.Or(err, errors.New(out)))
	}
	return addRoute("veth-here", netip.PrefixFrom(addr.Addr(), 32).String(), ClientAddr)
}

// Lies lists the queries that the servers of ServeLies got, and from where.
func Lies() ([]string, error) {
	out, err := order("lies")
	return strings.FieldsFunc(out, func(c rune) bool { return c == '\n' }), err
}

// order sends a line to the client's process and returns the reply.
func order(line string) (string, error) {
	c, err := net.Dial("unix", os.Getenv(envClient))
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintln(c, line)
	out, err := io.ReadAll(c)
	return string(out), err
}

// startClient starts the client's process in a namespace of its own and joins
// the two namespaces. The process ends when alive is closed.
func startClient() (alive *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envStage+"="+stageClient)
	cmd.Stdin = r
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth-here"}, PeerName: "veth-client", PeerNamespace: netlink.NsPid(cmd.Process.Pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("veth: %w", err)
	}
	if err := linkUp("veth-here", HereAddr+"/24"); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return nil, fmt.Errorf("the client's process printed %q, want ready: %v", line, err)
	}
	return w, nil
}

// client is the process in the second namespace. It serves a socket: a
// connection there is joined to a TCP connection that the client opens, or is
// an order about its DNS servers. The process ends with its standard input.
func client() error {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	var err error
	for range 500 {
		if err = linkUp("veth-client", ClientAddr+"/24"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond) // the other process makes the link after this one has started
	}
	if err != nil {
		return err
	}
	if err := linkUp("lo", ""); err != nil {
		return err
	}
	ln, err := net.Listen("unix", os.Getenv(envClient))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var l liar
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go serveClient(c.(*net.UnixConn), &l)
	}
}

func serveClient(c *net.UnixConn, l *liar) {
	defer c.Close()
	br := bufio.NewReaderSize(c, 256)
	line, err := br.ReadString('\n')
	if err != nil {
		return
	}
	line = strings.TrimSpace(line)
	if rest, ok := strings.CutPrefix(line, "lie "); ok {
		addr, answer, _ := strings.Cut(rest, " ")
		if err := l.serve(addr, net.ParseIP(answer)); err != nil {
			fmt.Fprintln(c, err)
		}
		return
	}
	if line == "lies" {
		io.WriteString(c, l.seen())
		return
	}
	target, err := net.DialTimeout("tcp", line, 10*time.Second)
	if err != nil {
		fmt.Fprintln(os.Stderr, "nstest client:", err)
		return
	}
	defer target.Close()
	c.Write([]byte{1})
	go func() {
		io.Copy(target, br)
		target.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, target)
	c.CloseWrite()
}

// liar is DNS servers. Each answers every name with the same address.
type liar struct {
	mu     sync.Mutex
	serves map[string]bool // by address
	asked  []string
}

// serve starts the server at addr, unless it runs already. It ends with the
// process.
func (l *liar) serve(addr string, answer net.IP) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.serves[addr] {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if err := linkUp("lo", host+"/32"); err != nil {
		return err
	}
	// The way back to the tailnet's addresses, which such a network does not know.
	if err := addRoute("veth-client", "100.64.0.0/10", HereAddr); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { l.answer(w, q, answer) })
	go (&dns.Server{Listener: ln, Handler: h}).ActivateAndServe()
	go (&dns.Server{PacketConn: pc, Handler: h}).ActivateAndServe()
	if l.serves == nil {
		l.serves = map[string]bool{}
	}
	l.serves[addr] = true
	return nil
}

// answer answers q, and notes it.
func (l *liar) answer(w dns.ResponseWriter, q *dns.Msg, a net.IP) {
	l.mu.Lock()
	l.asked = append(l.asked, fmt.Sprintf("%s from %s over %s", strings.ReplaceAll(q.Question[0].String(), "\t", " "), w.RemoteAddr(), w.RemoteAddr().Network()))
	l.mu.Unlock()
	m := new(dns.Msg).SetReply(q)
	if q.Question[0].Qtype == dns.TypeA {
		h := dns.RR_Header{
			Name:   q.Question[0].Name,
			Rrtype: dns.TypeA,
			Class:  dns.ClassINET,
			Ttl:    60,
		}
		m.Answer = []dns.RR{&dns.A{Hdr: h, A: a}}
	}
	w.WriteMsg(m)
}

// seen returns the queries so far, one a line.
func (l *liar) seen() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.asked, "\n")
}

// addRoute routes prefix through the link called name, by the router via.
func addRoute(name, prefix, via string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	dst, err := netlink.ParseIPNet(prefix)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: net.ParseIP(via)}); err != nil {
		return fmt.Errorf("route to %s: %w", prefix, err)
	}
	return nil
}

func linkUp(name, addr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if addr != "" {
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(link, a); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return netlink.LinkSetUp(link)
}
