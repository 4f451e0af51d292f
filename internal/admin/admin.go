// Package admin is the port for probes, scrapers and people: /livez, /readyz,
// /healthz, /metrics, /status, /explain and, if it is switched on,
// /debug/pprof/. It answers from what it is given and decides nothing.
package admin

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"
)

// Check is one condition of readiness.
type Check struct {
	Name string
	Err  error // nil when it holds
	// Note is for people: what is not as it should be, but no reason to be sent
	// no clients. Empty is nothing.
	Note string
}

// Names of conditions that others look for.
const (
	OnTailnet   = "tailnet"
	NotDraining = "not-draining"
)

// Server answers probes. All functions are needed.
type Server struct {
	// Checks returns the conditions of readiness, each as it is now.
	Checks func() []Check
	// OnTailnet reports whether the device has joined its tailnet: what the
	// stock container calls healthy.
	OnTailnet func() bool
	Metrics   http.Handler
	// Status returns everything that a person asks, with at most so many flows.
	Status func(flows int) Status
	// Explain answers POST /explain, from wherever it sees fit.
	Explain http.Handler
	// Profiles switches on /debug/pprof/.
	Profiles bool
}

// Serve answers on ln until it is closed, and then closes its connections.
func (s *Server) Serve(ln net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.Handle("GET /metrics", s.Metrics)
	mux.HandleFunc("GET /status", s.status)
	mux.Handle("POST /explain", s.Explain)
	mux.Handle("GET /{$}", http.RedirectHandler("/status", http.StatusFound))
	if s.Profiles {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		// Not cmdline: a flag may be a secret.
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	hs := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 90 * time.Second, WriteTimeout: 2 * time.Minute}
	defer hs.Close()
	return hs.Serve(ln)
}

// readyz answers 200 when every check holds, else 503 with those that don't.
// With ?verbose it lists them all, in the form of the Kubernetes API server.
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
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
		b.WriteString("not ready\n")
	} else {
		b.WriteString("ok\n")
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
