// Package stockcli is the command tailscale of the stock container, as far as probes and
// scripts use it: tailscale status and tailscale ip. It asks the admin port of the
// replica in the same container. Its text and its JSON are those of Tailscale
// (tailscale.com/cmd/tailscale/cli), with the fields that Pando has.
package stockcli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/cli/adminport"
	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/status"
	"github.com/pandoproxy/pando/internal/stock"
)

// Name is the name under which this command is called.
const Name = "tailscale"

// timeout bounds the wait for the replica. Kubernetes gives a probe one second unless
// the manifest says otherwise.
const timeout = 5 * time.Second

const usage = "use tailscale status [--json] [--peers=false] or tailscale ip [-4] [-6] [-1]; for more: /pando status, /pando explain"

// Run runs "tailscale args". environ is the container's, of the form of os.Environ: it
// says where the admin port is. The error is nil only if the device is on its tailnet.
func Run(ctx context.Context, args, environ []string, out io.Writer) error {
	fs := newFlagSet()
	fs.String("socket", "", "") // of tailscaled, which is not here
	if err := parse(fs, args); err != nil {
		return err
	}
	var show func(io.Writer, *status.Replica) error
	command := fs.Arg(0)
	fs2 := newFlagSet()
	switch command {
	case "status":
		show = statusFlags(fs2)
	case "ip":
		show = ipFlags(fs2)
	default:
		return fmt.Errorf("tailscale %s: there is no tailscaled here; %s", command, usage)
	}
	if err := parse(fs2, fs.Args()[1:]); err != nil {
		return err
	}
	if fs2.NArg() > 0 {
		return fmt.Errorf("tailscale %s: unexpected argument %q; %s", command, fs2.Arg(0), usage)
	}
	address, err := adminAddress(environ)
	if err != nil {
		return err
	}
	port := adminport.Port{Address: address, Timeout: timeout}
	data, err := port.Get(ctx, "/status?flows=0")
	if err != nil {
		return err
	}
	var st status.Replica
	if err := port.Decode(data, &st); err != nil {
		return err
	}
	return show(out, &st)
}

func newFlagSet() *flag.FlagSet {
	fs := flag.NewFlagSet(Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

func parse(fs *flag.FlagSet, args []string) error {
	err := fs.Parse(args)
	if err != nil {
		return fmt.Errorf("tailscale: %w; %s", err, usage)
	}
	return nil
}

// adminAddress returns where this container's replica has its admin port.
func adminAddress(environ []string) (string, error) {
	var file string
	for _, kv := range environ {
		if name, value, _ := strings.Cut(kv, "="); name == "PANDO_CONFIG" {
			file = value
		}
	}
	// The error is not used: mistakes elsewhere in the settings do not move the port.
	c, err := config.Load(file, environ, nil)
	if stock.Detect(environ) {
		c, _, err = stock.Load(file, environ)
	}
	admin := config.ParseListen(c.Listen.Admin)
	switch {
	case c.Listen.Admin == "" && err == nil:
		return "", errors.New("the replica has no admin port to ask: set TS_ENABLE_HEALTH_CHECK=true")
	case !admin.IsValid() && err != nil:
		return "", fmt.Errorf("cannot find the replica's admin port: %w", err)
	case admin.Addr().IsUnspecified():
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(admin.Port()))), nil
	}
	return admin.String(), nil
}

// isUp returns nil if the device is on its tailnet.
func isUp(d status.Device) error {
	switch {
	case d.Up:
		return nil
	case d.LoginURL != "":
		return fmt.Errorf("logged out; log in at: %s", d.LoginURL)
	}
	return fmt.Errorf("not on the tailnet: %s", d.State)
}

// statusFlags adds the flags of tailscale status to fs, and returns what prints it.
func statusFlags(fs *flag.FlagSet) func(io.Writer, *status.Replica) error {
	asJSON := fs.Bool("json", false, "")
	self := fs.Bool("self", true, "")
	peers := fs.Bool("peers", true, "")
	active := fs.Bool("active", false, "")
	return func(w io.Writer, st *status.Replica) error {
		if !*peers {
			st.Peers = nil
		}
		if *asJSON {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return enc.Encode(newStatus(st)) // as with tailscaled: whatever the state is
		}
		if err := isUp(st.Tailnet); err != nil {
			return err
		}
		if *self {
			line(w, st.Tailnet.Addrs, st.Tailnet.Name, "-")
		}
		for _, p := range st.Peers {
			if state := peerState(p); !*active || strings.HasPrefix(state, "active") {
				line(w, p.Addrs, p.Name, state)
			}
		}
		for i, h := range st.Tailnet.Health {
			if i == 0 {
				fmt.Fprint(w, "\n# Health check:\n")
			}
			fmt.Fprintf(w, "#     - %s\n", h)
		}
		return nil
	}
}

// line prints a device. The owner and the system are not known here.
func line(w io.Writer, addrs []netip.Addr, name, state string) {
	short, _, _ := strings.Cut(name, ".")
	addr := ""
	if len(addrs) > 0 {
		addr = addrs[0].String()
	}
	fmt.Fprintf(w, "%-15s %-20s %-12s %-7s %s\n", addr, short, "-", "-", state)
}

func peerState(p status.Peer) string {
	switch {
	case !p.Online:
		return "offline"
	case p.Path == "":
		return "-"
	}
	return fmt.Sprintf("active; %s, tx %d rx %d", p.Path, p.Sent, p.Received)
}

// ipFlags adds the flags of tailscale ip to fs, and returns what prints it.
func ipFlags(fs *flag.FlagSet) func(io.Writer, *status.Replica) error {
	only4 := fs.Bool("4", false, "")
	only6 := fs.Bool("6", false, "")
	one := fs.Bool("1", false, "")
	return func(w io.Writer, st *status.Replica) error {
		if err := isUp(st.Tailnet); err != nil {
			return err
		}
		n := 0
		for _, a := range st.Tailnet.Addrs {
			if *only4 && !a.Is4() || *only6 && !a.Is6() || *one && n > 0 {
				continue
			}
			n++
			fmt.Fprintln(w, a)
		}
		if n == 0 {
			return errors.New("the device has no such address")
		}
		return nil
	}
}

// statusJSON is what tailscale status --json prints, of tailscale.com/ipn/ipnstate.
type statusJSON struct {
	Version        string
	TUN            bool
	BackendState   string
	AuthURL        string
	TailscaleIPs   []netip.Addr
	Self           device
	Health         []string
	MagicDNSSuffix string
	Peer           map[string]device // by name; tailscaled has them by key
}

type device struct {
	ID            string `json:",omitempty"`
	HostName      string
	DNSName       string
	TailscaleIPs  []netip.Addr
	PrimaryRoutes []netip.Prefix `json:",omitempty"`
	Online        bool
	Active        bool
	RxBytes       int64
	TxBytes       int64
	LastHandshake time.Time
}

func newStatus(st *status.Replica) statusJSON {
	t := st.Tailnet
	self := newDevice(t.Name, t.Addrs)
	self.ID = t.ID
	self.Online = t.Up && t.ControlConnected
	_, suffix, _ := strings.Cut(t.Name, ".")
	s := statusJSON{
		Version:        st.Version,
		TUN:            st.Mode == "kernel",
		BackendState:   t.State,
		AuthURL:        t.LoginURL,
		TailscaleIPs:   t.Addrs,
		Self:           self,
		Health:         t.Health,
		MagicDNSSuffix: suffix,
		Peer:           map[string]device{},
	}
	for _, p := range st.Peers {
		d := newDevice(p.Name, p.Addrs)
		d.PrimaryRoutes = p.Routes
		d.Online = p.Online
		d.Active = p.Path != ""
		d.RxBytes = p.Received
		d.TxBytes = p.Sent
		if p.LastHandshake != nil {
			d.LastHandshake = *p.LastHandshake
		}
		s.Peer[p.Name] = d
	}
	return s
}

func newDevice(name string, addrs []netip.Addr) device {
	short, _, _ := strings.Cut(name, ".")
	d := device{HostName: short, TailscaleIPs: addrs}
	if name != "" {
		d.DNSName = name + "."
	}
	return d
}
