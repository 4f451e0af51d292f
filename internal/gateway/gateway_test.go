package gateway_test

import (
	"context"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// Every test here is a client of a real gateway on a real tailnet. A test says
// in its first line in which modes it runs, and on which tailnet:
//
//	func TestDrain(t *testing.T) { eachMode(t, sharedTailnet, drain) }
//
// Both modes are for what the mode can change: how a connection is dialled,
// how its bytes and its end are passed on, which errors it has, how it is cut,
// and which addresses are the replica's own. HTTP, rules, limits, reloads, the
// admin port and the DNS answerer are the same code above either mode. They
// run in userspace mode alone.

func TestMain(m *testing.M) { nstest.Main(m, closePool) }

// A place gives a test its world: sharedTailnet, ownTailnet or sharedGateway.
type place func(t *testing.T, mode tailnet.Mode) *world

// eachMode runs a test in both modes: see nstest.EachMode.
func eachMode(t *testing.T, at place, run func(*testing.T, *world)) {
	t.Helper()
	nstest.EachMode(t, func(t *testing.T, mode tailnet.Mode) { run(t, at(t, mode)) })
}

// userspace runs a test in userspace mode, in parallel with others.
func userspace(t *testing.T, at place, run func(*testing.T, *world)) {
	t.Helper()
	t.Parallel()
	run(t, at(t, tailnet.Userspace))
}

// userspaceAlone is userspace for tests that measure time or memory.
func userspaceAlone(t *testing.T, at place, run func(*testing.T, *world)) {
	t.Helper()
	run(t, at(t, tailnet.Userspace))
}

// A pooled tailnet is shared by tests that change nothing in it but by adding
// origins, names and gateways of their own.
type pooled struct {
	net   *testnet.Net
	cloud *testnet.Cloud
	uses  int // tests so far
	users int // tests that still run

	gatewayOnce sync.Once
	gateway     *replica // of sharedGateway
	dir         string   // holds the files that it reads
}

// usesMost is how many tests a pooled tailnet serves: the control server
// forgets no device, so every gateway knows all that came before.
const usesMost = 40

var pool struct {
	sync.Mutex
	current *pooled
}

// take returns the current tailnet of the pool until the test ends.
func take(t *testing.T) *pooled {
	t.Helper()
	pool.Lock()
	defer pool.Unlock()
	if pool.current == nil || pool.current.uses >= usesMost {
		p := &pooled{}
		// It outlives the test.
		p.net, p.cloud = startTailnet(t, context.WithoutCancel(t.Context()), nil)
		pool.current = p
	}
	p := pool.current
	p.uses++
	p.users++
	t.Cleanup(func() {
		pool.Lock()
		defer pool.Unlock()
		p.users--
		if p.users == 0 && p.uses >= usesMost {
			p.close()
		}
	})
	return p
}

func (p *pooled) close() {
	if p.gateway != nil {
		p.gateway.kill()
		p.gateway.wait()
	}
	os.RemoveAll(p.dir)
	p.cloud.Close()
	p.net.Close()
}

// closePool closes the tailnet that is left when all tests have ended.
func closePool() {
	if pool.current != nil && pool.current.uses < usesMost {
		pool.current.close()
	}
}

// sharedTailnet is for tests that change nothing in the tailnet but by adding
// to it.
func sharedTailnet(t *testing.T, mode tailnet.Mode) *world {
	t.Helper()
	p := take(t)
	return newWorld(t, mode, p.net, p.cloud)
}

// ownTailnet is for tests that change the tailnet, or that count or find its
// devices.
func ownTailnet(t *testing.T, mode tailnet.Mode) *world {
	t.Helper()
	return tailnetWith(t, mode, nil)
}

// tailnetWith is ownTailnet with split-DNS routes besides that of the private
// zone.
func tailnetWith(t *testing.T, mode tailnet.Mode, routes map[string][]string) *world {
	t.Helper()
	nw, cloud := startTailnet(t, t.Context(), routes)
	t.Cleanup(func() {
		cloud.Close()
		nw.Close()
	})
	return newWorld(t, mode, nw, cloud)
}

// sharedGateway is for tests that need only a replica with the default policy.
// In userspace mode they share one: a test must look at flows to its own
// targets alone.
func sharedGateway(t *testing.T, mode tailnet.Mode) *world {
	t.Helper()
	p := take(t)
	w := newWorld(t, mode, p.net, p.cloud)
	if mode != tailnet.Userspace {
		w.replica = w.start(t, nil)
		return w
	}
	p.gatewayOnce.Do(func() {
		// The gateway outlives the test, and so must the files that it reads.
		var err error
		p.dir, err = os.MkdirTemp("", "pando-gateway-")
		if err != nil {
			t.Fatal(err)
		}
		outlives := *w
		outlives.dir = p.dir
		r := outlives.launch(t, t.Context(), nil, nil)
		if err := r.gw.Wait(testkit.Within(t, time.Minute)); err != nil {
			r.kill()
			t.Fatal(err)
		}
		p.gateway = r
	})
	if p.gateway == nil {
		t.Fatal("the shared gateway did not start: see the first test that needed it")
	}
	w.replica = p.gateway
	return w
}

// newWorld gives the test an origin and a directory of its own.
func newWorld(t *testing.T, mode tailnet.Mode, nw *testnet.Net, cloud *testnet.Cloud) *world {
	t.Helper()
	w := &world{
		mode:   mode,
		net:    nw,
		cloud:  cloud,
		origin: newOrigin(t, cloud),
		dir:    t.TempDir(),
	}
	if err := os.WriteFile(w.ca(), cloud.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

// startTailnet starts a tailnet with a cloud node, with split-DNS routes
// besides that of the private zone. The caller closes both.
func startTailnet(t *testing.T, ctx context.Context, more map[string][]string) (*testnet.Net, *testnet.Cloud) {
	t.Helper()
	nw, err := testnet.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	routes := map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}}
	maps.Copy(routes, more)
	nw.SetDNSRoutes(routes)
	start, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cloud, err := nw.StartCloud(start, "cloud", nil)
	if err != nil {
		nw.Close()
		t.Fatal(err)
	}
	return nw, cloud
}
