package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
)

// The private site. Its addresses exist only in the router's pod.
const (
	zone       = "internal.cloudprovider.io"
	apiName    = "api." + zone
	apiAddr    = "10.55.3.4"
	dnsAddr    = "10.55.0.2"
	echoPort   = "7000" // answers with the number of bytes, when the client has ended its direction
	siteSecret = "/etc/site"
)

// site runs the private API and the private DNS server until ctx ends.
func site(ctx context.Context) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, a := range []string{apiAddr, dnsAddr} {
		addr, err := netlink.ParseAddr(a + "/32")
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(lo, addr); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	mux := http.NewServeMux()
	mux.HandleFunc("/", describe)
	mux.HandleFunc("/slow", slow)
	plain := &http.Server{Addr: apiAddr + ":80", Handler: mux}
	secure := &http.Server{Addr: apiAddr + ":443", Handler: mux, TLSConfig: &tls.Config{}}
	g.Go(plain.ListenAndServe)
	g.Go(func() error { return secure.ListenAndServeTLS(siteSecret+"/tls.crt", siteSecret+"/tls.key") })
	for _, network := range []string{"udp", "tcp"} {
		s := &dns.Server{Addr: dnsAddr + ":53", Net: network, Handler: dns.HandlerFunc(answer)}
		g.Go(s.ListenAndServe)
	}
	g.Go(func() error { return echo(ctx) })
	g.Go(func() error { <-ctx.Done(); return ctx.Err() })
	fmt.Println("the private site is up")
	return g.Wait()
}

// describe answers with the device that the request came through.
func describe(w http.ResponseWriter, r *http.Request) {
	device, _, _ := net.SplitHostPort(r.RemoteAddr)
	json.NewEncoder(w).Encode(map[string]any{"service": "private-api", "device": device, "host": r.Host, "tls": r.TLS != nil})
}

// slow sends chunks for the time in the form value ms, in milliseconds, and their
// hash as a trailer.
func slow(w http.ResponseWriter, r *http.Request) {
	ms, _ := strconv.Atoi(r.FormValue("ms"))
	w.Header().Set("Trailer", "X-Sum")
	h := sha256.New()
	end := time.Now().Add(time.Duration(ms) * time.Millisecond)
	for i := 0; ; i++ {
		chunk := strings.Repeat(strconv.Itoa(i), 2000)
		io.WriteString(h, chunk)
		if _, err := io.WriteString(w, chunk); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		if !time.Now().Before(end) {
			break
		}
		time.Sleep(400 * time.Millisecond) // the pace of a slow transfer
	}
	w.Header().Set("X-Sum", fmt.Sprintf("%x", h.Sum(nil)))
}

func echo(ctx context.Context) error {
	ln, err := net.Listen("tcp", apiAddr+":"+echoPort)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { ln.Close() })
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			n, err := io.Copy(io.Discard, c)
			if err == nil {
				fmt.Fprintf(c, "%d\n", n)
			}
		}()
	}
}

// answer is authoritative for the zone and refuses everything else.
func answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	name := strings.ToLower(q.Question[0].Name)
	switch {
	case !dns.IsSubDomain(zone+".", name):
		m.Rcode = dns.RcodeRefused
	case name != apiName+".":
		m.Rcode = dns.RcodeNameError
		m.Authoritative = true
	case q.Question[0].Qtype == dns.TypeA:
		m.Authoritative = true
		header := dns.RR_Header{
			Name:   q.Question[0].Name,
			Rrtype: dns.TypeA,
			Class:  dns.ClassINET,
			Ttl:    10,
		}
		m.Answer = []dns.RR{&dns.A{Hdr: header, A: netip.MustParseAddr(apiAddr).AsSlice()}}
	default:
		m.Authoritative = true
	}
	w.WriteMsg(m)
}
