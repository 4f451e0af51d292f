package tailnet

import (
	"net/http"
	"net/url"
	"sync/atomic"

	"tailscale.com/feature"

	"github.com/pandoproxy/pando/internal/podproxy"
)

// engineProxy is what the engine of this process asks for a proxy; nil means none.
var engineProxy atomic.Pointer[podproxy.Proxy]

// The engine asks these hooks, which may be set once and before it runs. Its own
// package for them (tailscale.com/feature/useproxy) reads the environment once, does
// not know a fleet, and logs the passwords of proxies.
func init() {
	feature.HookProxyFromEnvironment.Set(func(r *http.Request) (*url.URL, error) { return engineProxy.Load().For(r.URL) })
	feature.HookProxyGetAuthHeader.Set(func(u *url.URL) (string, error) { return engineProxy.Load().Authorization(u), nil })
	feature.HookProxySetTransportGetProxyConnectHeader.Set(func(t *http.Transport) { engineProxy.Load().Prepare(t) })
}

// useProxy has the engine ask p. Nil changes nothing.
func useProxy(p *podproxy.Proxy) {
	if p != nil {
		engineProxy.Store(p)
	}
}

// dropProxy ends useProxy, unless another one was set since.
func dropProxy(p *podproxy.Proxy) {
	if p != nil {
		engineProxy.CompareAndSwap(p, nil)
	}
}
