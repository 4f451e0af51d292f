package stockcli

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/status"
)

// up is the status of a replica on its tailnet.
func up() status.Replica {
	return status.Replica{
		Version: "v1",
		Mode:    "userspace",
		Tailnet: status.Device{
			ID:               "n1",
			Name:             "egress-0.aspen.ts.net",
			Addrs:            []netip.Addr{netip.MustParseAddr("100.64.0.7"), netip.MustParseAddr("fd7a:115c:a1e0::7")},
			State:            "Running",
			Up:               true,
			ControlConnected: true,
			Health:           []string{"not well"},
		},
		Peers: []status.Peer{
			{Name: "router.aspen.ts.net", Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.1")}, Routes: []netip.Prefix{netip.MustParsePrefix("10.12.0.0/16")}, Online: true, Path: "relay fra", Sent: 1, Received: 2},
			{Name: "laptop.aspen.ts.net", Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.2")}},
			{Name: "idle.aspen.ts.net", Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.3")}, Online: true},
		},
	}
}

// replica answers as the admin port of a replica with this status. It returns the
// environment of the replica's container.
func replica(t *testing.T, st status.Replica) (environ []string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "/status?flows=0" {
			t.Errorf("the admin port is asked for %s", r.URL)
		}
		json.NewEncoder(w).Encode(st)
	}))
	t.Cleanup(s.Close)
	return []string{"TS_AUTHKEY=tskey-auth-x", "TS_ENABLE_HEALTH_CHECK=true", "TS_LOCAL_ADDR_PORT=" + s.Listener.Addr().String()}
}

// TestCommands checks what each command prints.
func TestCommands(t *testing.T) {
	self := "100.64.0.7      egress-0             -            -       -\n"
	router := "100.64.0.1      router               -            -       active; relay fra, tx 1 rx 2\n"
	rest := "100.64.0.2      laptop               -            -       offline\n100.64.0.3      idle                 -            -       -\n"
	health := "\n# Health check:\n#     - not well\n"
	environ := replica(t, up())
	for args, want := range map[string]string{
		"status":                               self + router + rest + health,
		"--socket=/tmp/tailscaled.sock status": self + router + rest + health,
		"--socket /tmp/tailscaled.sock status": self + router + rest + health,
		"status --peers=false":                 self + health,
		"status -self=false --active":          router + health,
		"ip":                                   "100.64.0.7\nfd7a:115c:a1e0::7\n",
		"ip -4":                                "100.64.0.7\n",
		"ip --6":                               "fd7a:115c:a1e0::7\n",
		"--socket=/tmp/tailscaled.sock ip -1":  "100.64.0.7\n",
		"--socket=/var/run/tailscale/x.sock ip -6 -1": "fd7a:115c:a1e0::7\n",
	} {
		var out bytes.Buffer
		if err := Run(t.Context(), strings.Fields(args), environ, &out); err != nil || out.String() != want {
			t.Errorf("tailscale %s prints\n%s%v\nwant\n%s", args, &out, err, want)
		}
	}
}

// TestJSON checks the fields that scripts read.
func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), []string{"status", "--json"}, replica(t, up()), &out); err != nil {
		t.Fatal(err)
	}
	var got struct {
		BackendState   string
		TailscaleIPs   []string
		MagicDNSSuffix string
		Self           struct {
			HostName, DNSName string
			Online            bool
		}
		Peer map[string]struct {
			DNSName       string
			Online        bool
			PrimaryRoutes []string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	router := got.Peer["router.aspen.ts.net"]
	if got.BackendState != "Running" || len(got.TailscaleIPs) != 2 || got.MagicDNSSuffix != "aspen.ts.net" || got.Self.HostName != "egress-0" || got.Self.DNSName != "egress-0.aspen.ts.net." || !got.Self.Online {
		t.Errorf("tailscale status --json prints %s", &out)
	}
	if len(got.Peer) != 3 || router.DNSName != "router.aspen.ts.net." || !router.Online || len(router.PrimaryRoutes) != 1 {
		t.Errorf("tailscale status --json prints the peers %+v", got.Peer)
	}
}

// TestNotUp checks that a probe with tailscale status or tailscale ip fails while the
// device is not on its tailnet, and says why.
func TestNotUp(t *testing.T) {
	waits := up()
	waits.Tailnet.Up = false
	waits.Tailnet.State = "Starting"
	login := waits
	login.Tailnet.LoginURL = "https://login.example.com/a/1"
	for _, c := range []struct {
		status status.Replica
		want   string
	}{
		{waits, "not on the tailnet: Starting"},
		{login, "logged out; log in at: https://login.example.com/a/1"},
	} {
		for _, command := range []string{"status", "ip", "status --peers=false"} {
			var out bytes.Buffer
			err := Run(t.Context(), strings.Fields(command), replica(t, c.status), &out)
			if err == nil || err.Error() != c.want || out.Len() > 0 {
				t.Errorf("tailscale %s prints %q, %v; want the error %q", command, &out, err, c.want)
			}
		}
		var out bytes.Buffer
		if err := Run(t.Context(), []string{"status", "--json"}, replica(t, c.status), &out); err != nil || !strings.Contains(out.String(), `"BackendState": "Starting"`) {
			t.Errorf("tailscale status --json prints %s, %v; want the state", &out, err)
		}
	}
}

// TestMistakes checks that what is not there says what to use.
func TestMistakes(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	environ := replica(t, up())
	nowhere := []string{"TS_ENABLE_METRICS=1", "TS_LOCAL_ADDR_PORT=" + closed.Addr().String()}
	for _, c := range []struct {
		args    string
		environ []string
		want    string
	}{
		{"up", environ, "tailscale up: there is no tailscaled here; use tailscale status"},
		{"", environ, "there is no tailscaled here"},
		{"ping router", environ, "tailscale ping: there is no tailscaled here"},
		{"--help", environ, "use tailscale status"},
		{"status --help", environ, "use tailscale status"},
		{"status --web", environ, "flag provided but not defined: -web; use tailscale status"},
		{"ip router", environ, `unexpected argument "router"`},
		{"status", []string{"TS_AUTHKEY=x"}, "the replica has no admin port to ask: set TS_ENABLE_HEALTH_CHECK=true"},
		{"status", nowhere, "no answer from the admin port at " + closed.Addr().String()},
	} {
		var out bytes.Buffer
		if err := Run(t.Context(), strings.Fields(c.args), c.environ, &out); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("tailscale %s: %v, want an error with %q", c.args, err, c.want)
		}
	}
}

// TestAdminAddress checks where the replica is asked.
func TestAdminAddress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pando.yaml")
	if err := os.WriteFile(file, []byte("listen: {admin: '127.0.0.1:9009'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		environ []string
		want    string
	}{
		{nil, "127.0.0.1:9002"},
		{[]string{"TS_ENABLE_METRICS=true"}, "127.0.0.1:9002"},
		{[]string{"TS_ENABLE_METRICS=true", "TS_LOCAL_ADDR_PORT=0.0.0.0:9010"}, "127.0.0.1:9010"},
		{[]string{"TS_ENABLE_METRICS=true", "TS_LOCAL_ADDR_PORT=10.1.2.3:9010"}, "10.1.2.3:9010"},
		{[]string{"TS_HEALTHCHECK_ADDR_PORT=:9004"}, "127.0.0.1:9004"},
		{[]string{"PANDO_CONFIG=" + file}, "127.0.0.1:9009"},
		{[]string{"TS_AUTHKEY=x", "PANDO_CONFIG=" + file}, "127.0.0.1:9009"},
		{[]string{"PANDO_LISTEN_ADMIN=:9011", "TS_AUTHKEY=file:/nonexistent"}, "127.0.0.1:9011"},
	} {
		if got, err := adminAddress(c.environ); err != nil || got != c.want {
			t.Errorf("adminAddress(%q) = %q, %v; want %q", c.environ, got, err, c.want)
		}
	}
}
