package gateway_test

import (
	"net"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
)

// TestPortIsExclusive checks that a port belongs to one process, unless both
// processes are configured to share it.
func TestPortIsExclusive(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, reuse := range []bool{false, true} {
		cfg := config.Default()
		cfg.Listen = config.Listen{Proxy: ln.Addr().String(), ReusePort: reuse}
		_, err := gateway.New(t.Context(), cfg, gateway.Options{})
		if err == nil || !strings.Contains(err.Error(), "listen.proxy: "+ln.Addr().String()+" is in use; stop what uses it") {
			t.Errorf("reusePort %v: err = %v, want that the port is in use and what to do", reuse, err)
		}
	}
}
