// Package demo shows the whole of Pando in one process, without an account, a
// privilege or a packet that leaves loopback: a tailnet with a private API
// behind a cloud node, a fleet of three replicas that share a port, and a
// tour that tells what happens while it happens. The replicas are built by
// the constructor that `pando gateway` uses.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/testnet"
)

// Options say how the demo runs.
type Options struct {
	Listen string    // address of the fleet; empty means 127.0.0.1:1055
	Out    io.Writer // where the tour is told
	// Stay keeps the fleet up after the tour until ctx ends.
	Stay bool
	Log  *slog.Logger // nil discards
}

// replicas is the size of the fleet.
const replicas = 3

// Demo is the running tailnet and its fleet.
type Demo struct {
	opts  Options
	dir   string // keeps the replicas' state and the CA's certificate
	tls   string // address of the fleet's port for TLS clients that know of no proxy
	dns   string // and of its DNS answerer, which leads them there
	net   *testnet.Net
	cloud *testnet.Cloud
	fleet [replicas]*replica
}

// replica is one gateway of the fleet, running.
type replica struct {
	name   string
	gw     *gateway.Gateway
	drain  context.CancelFunc // begins to drain it
	kill   context.CancelFunc // ends it at once
	ended  chan struct{}
	err    error // how it ended; read it after ended
	device string
}

// Run gives the tour and returns nil if every step of it held.
func Run(ctx context.Context, opts Options) (err error) {
	if opts.Listen == "" {
		opts.Listen = "127.0.0.1:1055"
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := checkListen(opts.Listen); err != nil {
		return err
	}
	d := &Demo{opts: opts}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := d.tour(ctx); err != nil {
		return err
	}
	d.invite()
	if opts.Stay {
		d.say("\nThe fleet stays up. Ctrl-C ends it.")
		<-ctx.Done()
	}
	return nil
}

// checkListen makes sure that the fleet will be alone on its port, on loopback.
func checkListen(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--listen: %q is no address; write one such as 127.0.0.1:1055", addr)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("--listen: %s is not a loopback address; the demo stays on this machine: use 127.0.0.1", host)
	}
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use; stop what uses it (ss -ltnp shows it), or run: pando demo --listen 127.0.0.1:2055", addr)
	}
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	return ln.Close()
}

func (d *Demo) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var err error
	if d.dir, err = os.MkdirTemp("", "pando-demo-"); err != nil {
		return err
	}
	d.say("A tailnet in this process: control server, relay (DERP) and STUN on loopback.")
	if d.net, err = testnet.Start(ctx, d.opts.Log); err != nil {
		return err
	}
	d.net.SetDNSRoutes(map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}})
	if d.cloud, err = d.net.StartCloud(ctx, "cloud", d.opts.Log); err != nil {
		return err
	}
	if err := os.WriteFile(d.caFile(), d.cloud.CA, 0o644); err != nil {
		return err
	}
	d.say("A cloud node carries %v. Behind it, and nowhere else:", testnet.Network)
	d.say("  https://%s at %v, and the only DNS server that knows its name, at %v.", testnet.APIName, testnet.APIAddr, testnet.DNSAddr)
	if d.tls, d.dns, err = freePorts(); err != nil {
		return err
	}
	for i := range d.fleet {
		if d.fleet[i], err = d.startReplica(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// freePorts returns two addresses of loopback that nobody uses.
func freePorts() (a, b string, err error) {
	var addrs [2]string
	for i := range addrs {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer ln.Close() // when both are known
		addrs[i] = ln.Addr().String()
	}
	return addrs[0], addrs[1], nil
}

// startReplica starts replica i, or starts it again with the state it had.
func (d *Demo) startReplica(ctx context.Context, i int) (*replica, error) {
	r := &replica{name: fmt.Sprintf("pando-%d", i), ended: make(chan struct{})}
	cfg := config.Default()
	cfg.Listen = config.Listen{Proxy: d.opts.Listen, DNS: d.dns, ReusePort: true}
	cfg.SNI = []config.Port{{Listen: d.tls}}
	cfg.DNS.Zones, cfg.DNS.Fleet = []config.ServedZone{{Suffix: testnet.Zone}}, []string{"127.0.0.1"}
	cfg.Tailnet.Hostname = r.name
	cfg.Tailnet.ControlURL = d.net.URL()
	cfg.Tailnet.AuthKey = testnet.AuthKey
	cfg.Tailnet.StateDir = filepath.Join(d.dir, r.name)
	cfg.Drain = config.Drain{Settle: config.Duration(200 * time.Millisecond), Timeout: config.Duration(10 * time.Second)}
	if err := cfg.Validate(); err != nil {
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
	r.device = gw.Node().Addrs()[0].String()
	return r, nil
}

func (d *Demo) close() error {
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

func (d *Demo) caFile() string { return filepath.Join(d.dir, "ca.pem") }

func (d *Demo) say(format string, args ...any) { fmt.Fprintf(d.opts.Out, format+"\n", args...) }

// invite prints what a person can try.
func (d *Demo) invite() {
	if d.opts.Stay {
		d.say("\nTry it from another terminal:")
	} else {
		d.say("\nOn a terminal the fleet stays up, and you can try:")
	}
	url, ca := "https://"+testnet.APIName+"/hello", d.caFile()
	d.say("  curl --cacert %s -x http://%s %s", ca, d.opts.Listen, url)
	d.say("  curl --cacert %s -x socks5h://%s %s", ca, d.opts.Listen, url)
	d.say("  curl -x http://%s http://%s/hello", d.opts.Listen, testnet.APIName)
	dnsHost, dnsPort, _ := net.SplitHostPort(d.dns)
	d.say("  dig +short @%s -p %s %s   # the fleet's address", dnsHost, dnsPort, testnet.APIName)
	d.say("  curl --cacert %s --connect-to ::%s %s   # no proxy: by the name in its TLS hello", ca, d.tls, url)
	d.say("  curl -i -x http://%s http://169.254.169.254/   # cloud metadata: refused", d.opts.Listen)
}
