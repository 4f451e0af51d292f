package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/testnet"
)

// tour runs the steps, in order. The first that fails ends it.
func (d *demo) tour(ctx context.Context) error {
	steps := []struct {
		title string
		run   func(context.Context) error
	}{
		{"Three devices", d.devices},
		{"A private name, resolved through the tunnel", d.byName},
		{"Any client: plain HTTP and SOCKS5 on the same port", d.otherFronts},
		{"A client without proxy settings: DNS sends it to the fleet", d.noProxy},
		{"Targets that no client may reach", d.forbidden},
		{"Load is spread over the devices", d.spread},
		{"One replica is drained under load", d.drainOne},
		{"One replica is killed under load", d.killOne},
		{"Both replicas are started again", d.restart},
	}
	for i, s := range steps {
		d.say("\n%d. %s", i+1, s.title)
		if err := s.run(ctx); err != nil {
			d.say("   FAILED: %v", err)
			return fmt.Errorf("step %d, %s: %w", i+1, s.title, err)
		}
	}
	d.say("\nEvery step passed.")
	return nil
}

func (d *demo) devices(context.Context) error {
	n := 0
	for _, dev := range d.net.Devices() {
		d.say("   %-8s %s", dev.Name, dev.Addr)
		if strings.HasPrefix(dev.Name, "pando-") {
			n++
		}
	}
	if n != replicas {
		return fmt.Errorf("the control server lists %d replicas, want %d", n, replicas)
	}
	d.say("   The replicas share %s (SO_REUSEPORT). In Kubernetes, a Service spreads the load.", d.opts.Listen)
	return nil
}

func (d *demo) byName(ctx context.Context) error {
	before := d.cloud.Queries(testnet.APIName)
	start := time.Now()
	r, err := d.get(ctx, "http", "https://"+testnet.APIName+"/hello")
	if err != nil {
		return err
	}
	asked := d.cloud.Queries(testnet.APIName) - before
	if asked < 1 {
		return errors.New("the private DNS server received no query")
	}
	d.say("   CONNECT %s:443 → 200, TLS verified, in %v", testnet.APIName, time.Since(start).Round(time.Millisecond))
	d.say("   The API answered: %+v", r)
	d.say("   The private DNS server received %d queries. This machine's own DNS does not know the name.", asked)
	return nil
}

func (d *demo) otherFronts(ctx context.Context) error {
	r, err := d.get(ctx, "http", "http://"+testnet.APIName+"/plain")
	if err != nil {
		return err
	}
	d.say("   GET http://%s/plain → via device %s", r.Host, r.Device)
	r, err = d.get(ctx, "socks5h", "https://"+testnet.APIName+"/socks")
	if err != nil {
		return err
	}
	d.say("   socks5h → https://%s%s via device %s", r.Host, r.Path, r.Device)
	return nil
}

// noProxy is a client whose resolver is the fleet's DNS answerer. A pod gets there
// through cluster DNS. The client has no other setting.
func (d *demo) noProxy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, d.dns)
	}}
	addrs, err := resolver.LookupNetIP(ctx, "ip4", testnet.APIName+".")
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(d.tls) // a Service would offer it as port 443
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(d.cloud.CA)
	tr := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(addrs[0].String(), port))
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+testnet.APIName+"/no-proxy", nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var r testnet.Reply
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return err
	}
	if !r.TLS || r.Host != testnet.APIName {
		return fmt.Errorf("the API received %+v, want TLS with the host %s", r, testnet.APIName)
	}
	d.say("   DNS at %s answers that %s is at %v, which is the fleet.", d.dns, testnet.APIName, addrs[0])
	d.say("   The fleet finds the target by the server name of TLS. The certificate is the API's own: via device %s", r.Device)
	return nil
}

func (d *demo) forbidden(ctx context.Context) error {
	for _, target := range []string{"http://169.254.169.254/latest/meta-data/", "http://2130706433/", "http://[::ffff:7f00:1]/", "http://192.0.2.7/"} {
		resp, err := d.do(ctx, "http", target)
		if err != nil {
			return err
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusBadGateway {
			return fmt.Errorf("GET %s: %s, want 403 or 502", target, resp.Status)
		}
		line, _, _ := strings.Cut(string(body), "\n")
		d.say("   %-42s %d  %s", target, resp.StatusCode, line)
	}
	return nil
}

func (d *demo) spread(ctx context.Context) error {
	const n = 60
	devices := map[string]int{}
	for range n {
		r, err := d.get(ctx, "http", "https://"+testnet.APIName+"/spread")
		if err != nil {
			return err
		}
		devices[r.Device]++
	}
	d.sayDevices(fmt.Sprintf("%d connections", n), devices)
	if len(devices) != replicas {
		return fmt.Errorf("%d of %d devices carried connections, want all", len(devices), replicas)
	}
	return nil
}

func (d *demo) drainOne(ctx context.Context) error {
	r := d.fleet[1]
	res, err := d.underLoad(ctx, func() error {
		r.drain()
		<-r.ended
		return r.err
	})
	if err != nil {
		return err
	}
	d.say("   %s became not ready, closed its port, finished its work and left the tailnet.", r.name)
	d.sayLoad(res)
	if cut := res.failed - res.kinds[resetInQueue]; cut > 0 {
		return fmt.Errorf("the drain broke %d connections, want 0", cut)
	}
	return nil
}

func (d *demo) killOne(ctx context.Context) error {
	r := d.fleet[2]
	res, err := d.underLoad(ctx, func() error {
		r.kill()
		<-r.ended
		return r.err
	})
	if err != nil {
		return err
	}
	d.say("   %s was ended at once, with all its connections.", r.name)
	d.sayLoad(res)
	if res.lateFailures > 0 {
		return fmt.Errorf("%d connections failed after the replica had ended, want 0", res.lateFailures)
	}
	return nil
}

func (d *demo) restart(ctx context.Context) error {
	for _, i := range []int{1, 2} {
		old := d.fleet[i]
		r, err := d.startReplica(ctx, i)
		if err != nil {
			return err
		}
		d.fleet[i] = r
		d.say("   %s is back as the same device, %s.", r.name, r.device)
		if r.device != old.device {
			return fmt.Errorf("%s came back as device %s, want %s", r.name, r.device, old.device)
		}
	}
	return d.spread(ctx)
}

// load is the result of a burst of new connections.
type load struct {
	ok, failed   int
	kinds        map[string]int // failures by kind
	devices      map[string]int // successes by the device that carried them
	lateFailures int            // failures of connections that began after the event
}

// Kinds of failure, in words.
const (
	resetInQueue = "reset before an answer: they were in the queue of the listener that closed (a Service removes the replica first)"
	resetMidway  = "reset midway: the replica that carried them ended"
)

// underLoad opens new connections all the time, 8 at once, runs event after a
// moment, and ends a moment after event has returned.
func (d *demo) underLoad(ctx context.Context, event func() error) (load, error) {
	res := load{kinds: map[string]int{}, devices: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var stop, over atomic.Bool
	for range 8 {
		wg.Go(func() {
			for !stop.Load() && ctx.Err() == nil {
				late := over.Load()
				r, err := d.get(ctx, "http", "https://"+testnet.APIName+"/load")
				mu.Lock()
				if err == nil {
					res.ok++
					res.devices[r.Device]++
				} else {
					res.failed++
					res.kinds[kind(err)]++
					if late {
						res.lateFailures++
					}
				}
				mu.Unlock()
			}
		})
	}
	time.Sleep(700 * time.Millisecond) // of load before the event
	err := event()
	over.Store(true)
	time.Sleep(700 * time.Millisecond) // of load after it
	stop.Store(true)
	wg.Wait()
	return res, err
}

// kind says in words what kind of failure err is.
func kind(err error) string {
	pe, ok := errors.AsType[*proxyError](err)
	switch {
	case errors.Is(err, syscall.ECONNRESET) && ok && !pe.established, errors.Is(err, io.EOF) && ok && !pe.established:
		return resetInQueue
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return resetMidway
	}
	return err.Error()
}

func (d *demo) sayLoad(res load) {
	d.say("   %d new connections meanwhile: %d succeeded, %d failed.", res.ok+res.failed, res.ok, res.failed)
	for _, k := range slices.Sorted(maps.Keys(res.kinds)) {
		d.say("     %d %s", res.kinds[k], k)
	}
	d.sayDevices("carried", res.devices)
}

func (d *demo) sayDevices(what string, devices map[string]int) {
	var parts []string
	for _, r := range d.fleet {
		if n := devices[r.device]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", r.name, n))
		}
	}
	d.say("   %s: %s", what, strings.Join(parts, ", "))
}

// get requests a target through the fleet, over a connection of its own, and
// returns the API's answer. scheme is the proxy's: "http" or "socks5h".
func (d *demo) get(ctx context.Context, scheme, target string) (testnet.Reply, error) {
	var r testnet.Reply
	resp, err := d.do(ctx, scheme, target)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return r, fmt.Errorf("%s: %s (%s)", target, resp.Status, resp.Header.Get("Proxy-Status"))
	}
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

// proxyError is a failure of a request through the proxy.
type proxyError struct {
	error
	established bool // whether the tunnel was open
}

func (e *proxyError) Unwrap() error { return e.error }

// do requests a target through the fleet, over a connection of its own.
func (d *demo) do(ctx context.Context, scheme, target string) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(d.cloud.CA)
	var established atomic.Bool
	tr := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		Proxy:             http.ProxyURL(&url.URL{Scheme: scheme, Host: d.opts.Listen}),
		OnProxyConnectResponse: func(context.Context, *url.URL, *http.Request, *http.Response) error {
			established.Store(true)
			return nil
		},
		DialContext: (&net.Dialer{}).DialContext,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		cancel()
		return nil, &proxyError{err, established.Load()}
	}
	resp.Body = &cancelBody{resp.Body, cancel}
	return resp, nil
}

// cancelBody is a body that ends its request's context when it is closed.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
