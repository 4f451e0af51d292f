// Package admin serves the admin port. Everybody gets /livez, /readyz, /healthz and
// /metrics. Only processes of the replica's own network namespace get /status,
// /explain and, if it is switched on, /debug/pprof/. The package gathers nothing by
// itself: its fields provide the answers. It bounds connections, heads and times, so
// that no client keeps the probes out or uses up the replica's memory.
package admin

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/status"
)

// Server serves the admin port. All functions and handlers are required. Its bounds
// hold for all listeners together.
type Server struct {
	// Checks returns the present conditions of readiness. Their texts must not hold
	// a secret: everybody can read them.
	Checks func() []status.Check
	// OnTailnet reports whether the device has joined its tailnet. This is what
	// the stock container calls healthy.
	OnTailnet func() bool
	// Metrics answers GET /metrics.
	Metrics http.Handler
	// Status returns the state of the replica, with the oldest flows, at most
	// that many.
	Status func(flows int) status.Replica
	// Explain answers POST /explain.
	Explain http.Handler
	// Profiles switches on /debug/pprof/.
	Profiles bool
	// Panicked is called with the panic of a handler. Nil means nothing to call.
	Panicked func(error)

	places places
}

// Bounds of one connection. Probes and scrapers need far less.
const (
	headBytes = 4 << 10 // of a request; net/http reads 4 KiB more before it refuses
	headTime  = 5 * time.Second
	readTime  = 10 * time.Second // head and body
	writeTime = 10 * time.Second // the handler's work included; local allows more
	idleTime  = 10 * time.Second
)

// Serve answers on ln until ln is closed, and then closes all connections. Its
// error is never nil; it is net.ErrClosed after ln was closed.
func (s *Server) Serve(ln net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.Handle("GET /metrics", s.Metrics)
	mux.Handle("GET /status", local(http.HandlerFunc(s.status)))
	mux.Handle("POST /explain", local(s.Explain))
	mux.Handle("GET /{$}", http.RedirectHandler("/status", http.StatusFound))
	if s.Profiles {
		mux.Handle("GET /debug/pprof/", local(http.HandlerFunc(pprof.Index)))
		// Not /debug/pprof/cmdline: a flag may hold a secret.
		mux.Handle("GET /debug/pprof/profile", local(http.HandlerFunc(pprof.Profile)))
		mux.Handle("GET /debug/pprof/symbol", local(http.HandlerFunc(pprof.Symbol)))
		mux.Handle("GET /debug/pprof/trace", local(http.HandlerFunc(pprof.Trace)))
	}
	hs := &http.Server{
		Handler:           s.guarded(mux),
		MaxHeaderBytes:    headBytes,
		ReadHeaderTimeout: headTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		ConnState:         s.places.follow,
	}
	defer hs.Close()
	return hs.Serve(ln)
}

// readyz answers 200 when every check holds, and otherwise 503 with those that
// fail. With ?verbose it lists all checks, in the form of the Kubernetes API
// server.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	var b strings.Builder
	ready := true
	verbose := r.URL.Query().Has("verbose")
	for _, c := range s.Checks() {
		switch {
		case c.Err != nil:
			ready = false
			fmt.Fprintf(&b, "[-]%s failed: %v\n", c.Name, c.Err)
		case verbose && c.Note != "":
			fmt.Fprintf(&b, "[+]%s ok: %s\n", c.Name, c.Note)
		case verbose:
			fmt.Fprintf(&b, "[+]%s ok\n", c.Name)
		}
	}
	if ready {
		b.WriteString("ok\n")
	} else {
		w.WriteHeader(http.StatusServiceUnavailable)
		b.WriteString("not ready\n")
	}
	fmt.Fprint(w, b.String())
}

// healthz answers as the stock container's health check does: 200 when the
// device is on its tailnet.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if !s.OnTailnet() {
		http.Error(w, "the device is not on its tailnet", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
