package differential

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// passedOn returns the flows that have reached the origin.
func passedOn(r *testkit.Road) (list []*flow.Record) {
	for _, rec := range r.Finished() {
		if rec.Addr.IsValid() {
			list = append(list, rec)
		}
	}
	return list
}

// caseTime is longer than a busy machine takes for a case. No case waits for it: the
// client ends its stream, and so does the origin.
const caseTime = 20 * time.Second

// throughPando sends raw through this proxy to o, and returns what the client reads.
func throughPando(t *testing.T, o *recorder, raw string) string {
	t.Helper()
	r := &testkit.Road{Addr: o.addr}
	p := &httpproxy.Proxy{
		Road:          r,
		HeaderTimeout: caseTime,
		IdleTimeout:   caseTime,
		BodyTimeout:   caseTime,
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
func checkFlows(t *testing.T, r *testkit.Road, o *recorder) {
	t.Helper()
	flows := passedOn(r)
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
