package differential

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// road leads every request to one origin, whatever its target is.
type road struct {
	origin netip.AddrPort

	mu    sync.Mutex
	flows []*flow.Record
}

func (r *road) Connect(ctx context.Context, rec *flow.Record) (net.Conn, error) {
	return r.Dial(ctx, rec, nil)
}

func (r *road) Judge(context.Context, *flow.Record) ([]flow.Target, error) {
	return []flow.Target{{Addr: r.origin}}, nil
}

func (r *road) Dial(ctx context.Context, rec *flow.Record, _ []flow.Target) (net.Conn, error) {
	rec.Addr = r.origin
	return (&net.Dialer{}).DialContext(ctx, "tcp", r.origin.String())
}

func (r *road) Serving(*flow.Record, func(error)) {}

func (r *road) Tunnel(rec *flow.Record, p flow.Pair) {
	p.Client.Close()
	p.Target.Close()
	r.Finish(rec)
}

func (r *road) Finish(rec *flow.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flows = append(r.flows, rec)
}

// passedOn returns the flows that have reached the origin.
func (r *road) passedOn() (list []*flow.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.flows {
		if rec.Addr.IsValid() {
			list = append(list, rec)
		}
	}
	return list
}

// throughPando sends raw through this proxy to o, and returns what the client reads.
func throughPando(t *testing.T, o *recorder, raw string) string {
	t.Helper()
	r := &road{origin: o.addr}
	p := &httpproxy.Proxy{
		Road:          r,
		HeaderTimeout: 2 * time.Second,
		IdleTimeout:   time.Second,
		BodyTimeout:   2 * time.Second,
	}
	defer p.Close()
	client, server := testkit.TCPPair(t)
	done := make(chan bool)
	go func() {
		p.Serve(t.Context(), server)
		close(done)
	}()
	io.WriteString(client, fill(raw, o.addr))
	client.CloseWrite()
	answer, _ := io.ReadAll(client) // the proxy ends the connection: nothing more can come
	client.Close()
	<-done
	checkFlows(t, r, o)
	return string(answer)
}

// checkFlows checks that the origin has seen the requests that the proxy has logged:
// as many, with the same bodies, for the same targets.
func checkFlows(t *testing.T, r *road, o *recorder) {
	t.Helper()
	flows := r.passedOn()
	seen := o.take()
	complete := 0
	for _, s := range seen {
		if s.whole {
			complete++
		}
	}
	if len(seen) > len(flows) || complete < countOK(flows) {
		t.Errorf("the origin saw %d requests, %d of them whole; the proxy logged %d, %d without an error", len(seen), complete, len(flows), countOK(flows))
		return
	}
	for i, s := range seen {
		want := flows[i].Host
		if h, _, err := net.SplitHostPort(s.host); err == nil && sameHost(h, want) || sameHost(s.host, want) {
			if s.whole && flows[i].Err == nil && s.body != int(flows[i].Up) {
				t.Errorf("request %d: the origin read a body of %d bytes, the proxy logged %d", i, s.body, flows[i].Up)
			}
			continue
		}
		t.Errorf("request %d: the origin got Host %q, the proxy judged %q", i, s.host, want)
	}
}

func countOK(flows []*flow.Record) (n int) {
	for _, rec := range flows {
		if rec.Err == nil {
			n++
		}
	}
	return n
}

// sameHost reports whether a Host names the target that was judged. Loopback has many
// spellings in the corpus; the origin must get the usual one.
func sameHost(got, judged string) bool {
	return got == strings.ToLower(judged) || got == "127.0.0.1"
}

// fill replaces the placeholders of a raw request.
func fill(raw string, origin netip.AddrPort) string {
	return strings.NewReplacer("{origin}", origin.String(), "{port}", strconv.Itoa(int(origin.Port()))).Replace(raw)
}
