package gateway_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestReloadEndsDeniedTunnels(t *testing.T) { eachMode(t, sharedTailnet, endsDenied) }

// endsDenied checks that a reload ends the tunnels that the new policy denies, and
// no others, and that their log lines say why.
func endsDenied(t *testing.T, w *world) {
	hangup := make(chan os.Signal)
	var rules atomic.Pointer[[]config.Rule]
	rules.Store(&[]config.Rule{})
	r := w.startWith(t, nil, func(base config.Config, o *gateway.Options) {
		o.Hangup = hangup
		o.Load = func() (config.Config, error) {
			cfg := base
			cfg.Policy.Rules = *rules.Load()
			return cfg, nil
		}
	})
	denied, _ := r.connectTo(t, testnet.APIName+":443", "")
	kept, _ := r.connectTo(t, testnet.APIAddr.String()+":80", "")
	rules.Store(&[]config.Rule{{Name: "closed", Names: []string{testnet.APIName}, Action: "deny"}})
	hangup <- nil
	if _, err := io.Copy(io.Discard, denied); err == nil {
		t.Error("the tunnel that is denied now ended well, want a reset")
	}
	f := r.flows.find(t, testnet.APIName+":443")
	if f["class"] != "denied" || !strings.Contains(fmt.Sprint(f["err"]), "rule closed") {
		t.Errorf("the denied tunnel: flow line %v, want class denied and rule closed", f)
	}
	io.WriteString(kept, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if b, err := io.ReadAll(kept); err != nil || len(b) == 0 {
		t.Errorf("the other tunnel: %d bytes, %v, want an answer", len(b), err)
	}
}
