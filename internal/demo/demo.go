// Package demo shows all of Pando in one process: a tailnet with a private API
// behind a cloud node, a fleet of three replicas that share a port, and a tour
// that prints what happens. It needs no account and no privilege, and no packet
// leaves loopback. The replicas come from the constructor that pando gateway
// uses.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/testnet"
)

// Options are the settings of the demo.
type Options struct {
	Listen string    // loopback address of the fleet, host:port; empty means 127.0.0.1:1055
	Out    io.Writer // where the tour is printed
	// Stay keeps the fleet running after the tour, until the context ends.
	Stay bool
	Log  *slog.Logger // of the replicas; nil discards
}

// replicas is how many replicas the fleet has.
const replicas = 3

// demo is the running tailnet and its fleet.
type demo struct {
	opts  Options
	dir   string // holds the replicas' state and the CA's certificate
	tls   string // address of the fleet's port for TLS clients without proxy settings
	dns   string // address of the fleet's DNS answerer, which sends those clients to the fleet
	net   *testnet.Net
	cloud *testnet.Cloud
	fleet [replicas]*replica
}

// replica is one running replica of the fleet.
type replica struct {
	name   string
	gw     *gateway.Gateway
	drain  context.CancelFunc // starts its drain
	kill   context.CancelFunc // ends it at once
	ended  chan struct{}      // closed when it has ended
	err    error              // how it ended; read it only after ended is closed
	device string             // its first address on the tailnet
}

// Run gives the tour. It returns nil if every step of it passed.
func Run(ctx context.Context, opts Options) (err error) {
	if opts.Listen == "" {
		opts.Listen = "127.0.0.1:1055"
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := CheckListen(opts.Listen); err != nil {
		return fmt.Errorf("invalid --listen %q: %w", opts.Listen, err)
	}
	if err := checkFree(opts.Listen); err != nil {
		return err
	}
	d := &demo{opts: opts}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := d.tour(ctx); err != nil {
		return err
	}
	d.invite()
	if opts.Stay {
		d.say("\nThe fleet keeps running. Press Ctrl-C to end it.")
		<-ctx.Done()
	}
	return nil
}

// CheckListen returns an error, which says what to write, unless addr is a port of
// loopback, host:port.
func CheckListen(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return errors.New("write host:port, such as 127.0.0.1:1055")
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%s is not a loopback address; the demo stays on this machine, so use 127.0.0.1", host)
	}
	return nil
}

// checkFree returns an error unless addr can be listened on.
func checkFree(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use; stop the program that uses it (ss -ltnp shows it), or run: pando demo --listen 127.0.0.1:2055", addr)
	}
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	return ln.Close()
}

func (d *demo) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var err error
	d.dir, err = os.MkdirTemp("", "pando-demo-")
	if err != nil {
		return err
	}
	d.say("A tailnet in this process: control server, relay (DERP) and STUN on loopback.")
	d.net, err = testnet.Start(ctx, d.opts.Log)
	if err != nil {
		return err
	}
	d.net.SetDNSRoutes(map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}})
	d.cloud, err = d.net.StartCloud(ctx, "cloud", d.opts.Log)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.caFile(), d.cloud.CA, 0o644); err != nil {
		return err
	}
	d.say("A cloud node carries %v. These two are behind it, and nowhere else:", testnet.Network)
	d.say("  https://%s at %v", testnet.APIName, testnet.APIAddr)
	d.say("  a DNS server at %v, the only one that knows this name", testnet.DNSAddr)
	d.tls, d.dns, err = freePorts()
	if err != nil {
		return err
	}
	for i := range d.fleet {
		d.fleet[i], err = d.startReplica(ctx, i)
		if err != nil {
			return err
		}
	}
	return nil
}

// freePorts returns two addresses of loopback with ports that are free.
func freePorts() (a, b string, err error) {
	var addrs [2]string
	for i := range addrs {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer ln.Close() // once both are known, so that they differ
		addrs[i] = ln.Addr().String()
	}
	return addrs[0], addrs[1], nil
}

// startReplica starts replica i. A replica that was started before has its state
// of then, and so is the same device.
func (d *demo) startReplica(ctx context.Context, i int) (*replica, error) {
	r := &replica{name: fmt.Sprintf("pando-%d", i), ended: make(chan struct{})}
	cfg, err := d.replicaConfig(r.name)
	if err != nil {
		return nil, err
	}
	gw, err := gateway.New(ctx, cfg, gateway.Options{Log: d.opts.Log.With("replica", r.name)})
	if err != nil {
		return nil, err
	}
	r.gw = gw
	base := context.WithoutCancel(ctx)
	var run, cut context.Context
	run, r.drain = context.WithCancel(base)
	cut, r.kill = context.WithCancel(base)
	go func() {
		defer close(r.ended)
		r.err = gw.Run(run, cut)
	}()
	if err := gw.Wait(ctx); err != nil {
		r.kill()
		<-r.ended
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	r.device = gw.Device().Addrs()[0].String()
	return r, nil
}

// replicaConfig returns the configuration of the replica called name.
func (d *demo) replicaConfig(name string) (config.Config, error) {
	cfg := config.Default()
	cfg.Listen = config.Listen{Proxy: d.opts.Listen, DNS: d.dns, ReusePort: true}
	cfg.SNI = []config.FrontPort{{Listen: d.tls}}
	cfg.DNS.Zones = []config.ServedZone{{Suffix: testnet.Zone}}
	cfg.DNS.Fleet = []config.FleetHost{{Addr: netip.MustParseAddr("127.0.0.1")}}
	cfg.Tailnet.Hostname = name
	cfg.Tailnet.ControlURL = d.net.URL()
	cfg.Tailnet.AuthKey = testnet.AuthKey
	cfg.Tailnet.StateDir = filepath.Join(d.dir, name)
	cfg.Drain = config.Drain{
		Settle:  config.Duration(200 * time.Millisecond),
		Timeout: config.Duration(10 * time.Second),
	}
	return cfg, cfg.Validate()
}

// close ends the fleet at once, and then the tailnet.
func (d *demo) close() error {
	var wg sync.WaitGroup
	var errs [replicas]error
	for i, r := range d.fleet {
		if r != nil {
			wg.Go(func() {
				r.kill()
				<-r.ended
				errs[i] = r.err
			})
		}
	}
	wg.Wait()
	all := errs[:]
	if d.cloud != nil {
		all = append(all, d.cloud.Close())
	}
	if d.net != nil {
		all = append(all, d.net.Close())
	}
	if d.dir != "" {
		all = append(all, os.RemoveAll(d.dir))
	}
	return errors.Join(all...)
}

func (d *demo) caFile() string { return filepath.Join(d.dir, "ca.pem") }

// say prints one line of the tour.
func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.opts.Out, format+"\n", args...) }

// invite prints commands to try.
func (d *demo) invite() {
	if d.opts.Stay {
		d.say("\nTry it from another terminal:")
	} else {
		d.say("\nOn a terminal the fleet keeps running, and you can try:")
	}
	url := "https://" + testnet.APIName + "/hello"
	ca := d.caFile()
	d.say("  curl --cacert %s -x http://%s %s", ca, d.opts.Listen, url)
	d.say("  curl --cacert %s -x socks5h://%s %s", ca, d.opts.Listen, url)
	d.say("  curl -x http://%s http://%s/hello", d.opts.Listen, testnet.APIName)
	dnsHost, dnsPort, _ := net.SplitHostPort(d.dns)
	d.say("  dig +short @%s -p %s %s   # the fleet's address", dnsHost, dnsPort, testnet.APIName)
	d.say("  curl --cacert %s --connect-to ::%s %s   # without a proxy: by the name in the TLS ClientHello", ca, d.tls, url)
	d.say("  curl -i -x http://%s http://169.254.169.254/   # cloud metadata: denied", d.opts.Listen)
}
