package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/proxy"
)

// target is what a client asks, and through which proxy.
type target struct {
	proxy, url, ca string
	tunnel         bool
	timeout        time.Duration
}

func (t *target) flags(fs *flag.FlagSet) {
	fs.StringVar(&t.proxy, "proxy", "", "http://HOST:PORT or socks5h://HOST:PORT; empty goes to the URL's host itself")
	fs.StringVar(&t.url, "url", "https://"+apiName+"/", "what to ask for")
	fs.StringVar(&t.ca, "ca", siteSecret+"/ca.crt", "certificate authority of the private API")
	fs.BoolVar(&t.tunnel, "tunnel", false, "open a tunnel for http:// too")
	fs.DurationVar(&t.timeout, "timeout", 15*time.Second, "bound on a request")
}

// client returns a client that makes a new connection for each request and never
// repeats one.
func (t *target) client() (*http.Client, error) {
	u, err := url.Parse(t.proxy)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(t.ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	u.Scheme = strings.TrimSuffix(u.Scheme, "h") // net/http's socks5 is socks5h
	tr := &http.Transport{Proxy: http.ProxyURL(u), DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}
	if t.proxy == "" {
		tr.Proxy = nil
	}
	if t.tunnel {
		tr.Proxy = nil
		tr.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) { return connect(ctx, u.Host, addr) }
	}
	return &http.Client{Timeout: t.timeout, Transport: tr}, nil
}

// connect opens a tunnel to addr with CONNECT.
func connect(ctx context.Context, proxy, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", proxy)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", addr, addr)
	// The server sends nothing before the client does, so the reader takes no byte
	// of the tunnel.
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err == nil && resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		err = fmt.Errorf("CONNECT: %s: %s", resp.Status, body)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// get asks once and prints the answer.
func get(ctx context.Context, args []string) error {
	var t target
	fs := flag.NewFlagSet("get", flag.ContinueOnError)
	t.flags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	c, err := t.client()
	if err != nil {
		return err
	}
	body, err := ask(ctx, c, t.url)
	if err != nil {
		return err
	}
	fmt.Print(string(body))
	return nil
}

// lookup asks the pod's resolver for name, without search domains, and prints its
// first address.
func lookup(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name+".")
	if err != nil {
		return err
	}
	fmt.Println(addrs[0].Unmap())
	return nil
}

func ask(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return b, err
}

// halfClose sends bytes through SOCKS5, or directly to the API's address, ends its
// direction, and prints the answer that comes after that.
func halfClose(ctx context.Context, args []string) error {
	var t target
	fs := flag.NewFlagSet("half-close", flag.ContinueOnError)
	t.flags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	var socket net.Conn // the library's wrapper can't half-close
	var d proxy.ContextDialer = dialerFunc(func(ctx context.Context, network, addr string) (net.Conn, error) {
		var err error
		socket, err = new(net.Dialer).DialContext(ctx, network, addr)
		return socket, err
	})
	if t.proxy != "" {
		u, err := url.Parse(t.proxy)
		if err != nil {
			return err
		}
		socks, err := proxy.SOCKS5("tcp", u.Host, nil, d.(dialerFunc))
		if err != nil {
			return err
		}
		d = socks.(proxy.ContextDialer)
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(apiName, echoPort))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(t.timeout))
	if _, err := c.Write(make([]byte, 100_000)); err != nil {
		return err
	}
	if err := socket.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	fmt.Print(string(b))
	return err
}

type dialerFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func (f dialerFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f(ctx, network, addr)
}

func (f dialerFunc) Dial(network, addr string) (net.Conn, error) {
	return f(context.Background(), network, addr)
}

// Report is what load measured, as JSON.
type Report struct {
	New        int            // new connections
	Rate       float64        // new connections a second
	Failed     int            // new connections without the right answer
	Slow       int            // new connections that took over a second
	Max        time.Duration  // of the slowest new connection
	P50, P99   time.Duration  // of the new connections
	Devices    map[string]int // how often the API saw each device
	Errors     []string       // the first failures
	Transfers  int            // long transfers that ended
	Broken     int            // long transfers that were cut or had a wrong hash
	BrokenWhy  []string       // the first of their errors
	Concurrent int            // long transfers at a time
	Endless    int            // endless tunnels that ended
	Cut        int            // endless tunnels cut after the drain's time; an earlier cut counts as Broken
}

// load makes new connections at a steady rate, also while earlier ones are still
// open, and keeps a number of long transfers running, each in its own tunnel.
func load(ctx context.Context, args []string) error {
	var t target
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	t.flags(fs)
	rate := fs.Int("rate", 200, "new connections a second")
	duration := fs.Duration("duration", 10*time.Second, "how long")
	until := fs.String("until", "", "end when this file exists, instead")
	transfers := fs.Int("transfers", 0, "long transfers at a time")
	longest := fs.Duration("longest", 10*time.Second, "the longest of them")
	endless := fs.Int("endless", 0, "tunnels at a time that last longer than a drain")
	drain := fs.Duration("drain", 15*time.Second, "the least time that a drain leaves a tunnel open, also one that is opened while it settles")
	if err := fs.Parse(args); err != nil {
		return err
	}
	c, err := t.client()
	if err != nil {
		return err
	}
	rep := Report{Devices: map[string]int{}, Concurrent: *transfers}
	var took []time.Duration
	var mu sync.Mutex
	var wg sync.WaitGroup
	over := make(chan struct{})
	for range *transfers {
		wg.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				err := transfer(ctx, c, t.url, time.Second+rand.N(*longest-time.Second), *longest+t.timeout)
				mu.Lock()
				rep.Transfers++
				if err != nil {
					rep.Broken++
					rep.BrokenWhy = first(rep.BrokenWhy, err)
				}
				mu.Unlock()
			}
		})
	}
	endlessCtx, stop := context.WithCancel(ctx)
	defer stop()
	for range *endless {
		wg.Go(func() {
			for endlessCtx.Err() == nil {
				begin := time.Now()
				err := transfer(endlessCtx, c, t.url, 100*time.Second, 2*time.Minute)
				if endlessCtx.Err() != nil {
					return
				}
				mu.Lock()
				rep.Endless++
				switch {
				case err == nil:
				case time.Since(begin) >= *drain:
					rep.Cut++
				default:
					rep.Broken++
					rep.BrokenWhy = first(rep.BrokenWhy, err)
				}
				mu.Unlock()
			}
		})
	}
	start := time.Now()
	launched := 0
	for ; ctx.Err() == nil; launched++ {
		// A connection that starts late does not delay the next: the clock sets the rate.
		time.Sleep(time.Until(start.Add(time.Duration(launched) * time.Second / time.Duration(*rate))))
		if *until == "" && time.Since(start) >= *duration {
			break
		}
		if *until != "" {
			if _, err := os.Stat(*until); err == nil {
				os.Remove(*until)
				break
			}
		}
		wg.Go(func() {
			begin := time.Now()
			body, err := ask(ctx, c, t.url)
			d := time.Since(begin)
			var answer struct{ Service, Device string }
			if err == nil {
				err = json.Unmarshal(body, &answer)
				if err == nil && answer.Service != "private-api" {
					err = fmt.Errorf("another server answered: %s", body)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			rep.New++
			took = append(took, d)
			if d > time.Second {
				rep.Slow++
			}
			if err != nil {
				rep.Failed++
				rep.Errors = first(rep.Errors, fmt.Errorf("%s after %v: %w", begin.Format("15:04:05.000"), d.Round(time.Millisecond), err))
				return
			}
			rep.Devices[answer.Device]++
		})
	}
	close(over)
	stop()
	rep.Rate = math.Round(float64(launched) / time.Since(start).Seconds())
	wg.Wait()
	slices.Sort(took)
	if n := len(took); n > 0 {
		rep.P50 = took[n/2]
		rep.P99 = took[n*99/100]
		rep.Max = took[n-1]
	}
	return json.NewEncoder(os.Stdout).Encode(rep)
}

func first(list []string, err error) []string {
	if len(list) < 8 {
		list = append(list, err.Error())
	}
	return list
}

// transfer fetches a stream that takes d, and checks its hash.
func transfer(ctx context.Context, c *http.Client, base string, d, bound time.Duration) error {
	long := *c
	long.Timeout = bound
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%sslow?ms=%d", base, d.Milliseconds()), nil)
	if err != nil {
		return err
	}
	begin := time.Now()
	resp, err := long.Do(req)
	if err != nil {
		return fmt.Errorf("%s after %v: %w", begin.Format("15:04:05.000"), time.Since(begin).Round(time.Millisecond), err)
	}
	defer resp.Body.Close()
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		return fmt.Errorf("%s after %v of %v: %w", begin.Format("15:04:05.000"), time.Since(begin).Round(time.Millisecond), d, err)
	}
	if sum := fmt.Sprintf("%x", h.Sum(nil)); sum != resp.Trailer.Get("X-Sum") {
		return errors.New("wrong hash")
	}
	return nil
}
