package archtest

import (
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/datapath/sni"
	"github.com/pandoproxy/pando/internal/dnsserver"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// TestDefaults checks that the zero value of a stage means what the configuration has
// as its default. config.Default states the numbers; a stage may repeat one, so that
// it can be used on its own.
func TestDefaults(t *testing.T) {
	c := config.Default()
	for key, pair := range map[string][2]any{
		"tailnet.controlURL":        {c.Tailnet.ControlURL, tailnet.DefaultControlURL},
		"resolve.timeout":           {time.Duration(c.Resolve.Timeout), resolve.DefaultTimeout},
		"resolve.minTTL":            {time.Duration(c.Resolve.MinTTL), resolve.DefaultMinTTL},
		"resolve.maxTTL":            {time.Duration(c.Resolve.MaxTTL), resolve.DefaultMaxTTL},
		"dns.ttl":                   {time.Duration(c.DNS.TTL), dnsserver.DefaultTTL},
		"dial.timeout":              {time.Duration(c.Dial.Timeout), dial.DefaultTimeout},
		"dial.attempts":             {c.Dial.Attempts, dial.DefaultAttempts},
		"http.headerTimeout":        {time.Duration(c.HTTP.HeaderTimeout), httpproxy.DefaultHeaderTimeout},
		"http.headerTimeout of sni": {time.Duration(c.HTTP.HeaderTimeout), sni.DefaultTimeout},
		"http.idleTimeout":          {time.Duration(c.HTTP.IdleTimeout), httpproxy.DefaultIdleTimeout},
		"http.bodyTimeout":          {time.Duration(c.HTTP.BodyTimeout), httpproxy.DefaultBodyTimeout},
		"http.maxHeaderBytes":       {c.HTTP.MaxHeaderBytes, httpproxy.DefaultMaxHeaderBytes},
		"http.maxHeaders":           {c.HTTP.MaxHeaders, httpproxy.DefaultMaxHeaders},
	} {
		if pair[0] != pair[1] {
			t.Errorf("the default of %s is %v, and that of the stage is %v", key, pair[0], pair[1])
		}
	}
}
