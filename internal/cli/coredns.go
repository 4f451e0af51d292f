package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pandoproxy/pando/internal/config"
)

// corednsCommand prints what cluster DNS needs to forward the served zones.
func corednsCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "coredns",
		Short: "Print what cluster DNS needs to forward the zones of dns.zones to the fleet",
		Long: "Print the server blocks for CoreDNS's Corefile, and the stubDomains of kube-dns, that\n" +
			"forward the zones of dns.zones to the fleet's Service. Give the Service's IP address\n" +
			"with --address. Without the flag, it is the first address in dns.fleet. A name does not\n" +
			"work here, because CoreDNS cannot look it up.",
		Args: noArgs,
	}
	address := cmd.Flags().String("address", "", "the Service's cluster `IP`, with a port if DNS is not on port 53")
	settings := addConfigFlags(cmd, env)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := settings.load()
		if zonesErr := checkZones(cfg.DNS.Zones, err); zonesErr != nil {
			return zonesErr
		}
		server, err := fleetServer(*address, cfg.DNS.Fleet)
		if err != nil {
			return usageError(cmd, "%w", err)
		}
		return printForwarding(env.Stdout, cfg.DNS, server)
	}
	return cmd
}

// checkZones reports zones that cannot be forwarded. err is what is wrong with
// the whole configuration. A file that is meant for a pod may have other
// mistakes here, such as a key file that only the pod has: pando check reports
// them there.
func checkZones(zones []config.ServedZone, err error) error {
	if len(zones) == 0 {
		if err != nil {
			return err
		}
		return errors.New("dns.zones is empty, so there is nothing to forward; add a zone such as {suffix: internal.example.com}")
	}
	cfg := config.Default()
	cfg.DNS.Zones = zones
	cfg.DNS.Fleet = []config.FleetHost{{Addr: netip.MustParseAddr("127.0.0.1")}} // any address: that of the fleet may be a flag here
	return configError(cfg.Validate())
}

// fleetServer returns the fleet's DNS server, which is address or else the first
// address in fleet. Its port is 53 unless address names another.
func fleetServer(address string, fleet []config.FleetHost) (netip.AddrPort, error) {
	for _, f := range fleet {
		if f.Addr.IsValid() && address == "" {
			address = f.String()
		}
	}
	if address == "" {
		return netip.AddrPort{}, errors.New("no --address: give the Service's cluster IP (kubectl get service pando -o jsonpath={.spec.clusterIP})")
	}
	server, err := netip.ParseAddrPort(address)
	if addr, addrErr := netip.ParseAddr(address); addrErr == nil {
		server = netip.AddrPortFrom(addr, 53)
		err = nil
	}
	if err != nil || server.Port() == 0 || server.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("invalid --address %q: write the Service's cluster IP, such as 10.96.0.7", address)
	}
	return server, nil
}

// printForwarding prints the configuration of CoreDNS and of kube-dns that
// forwards the zones to server.
func printForwarding(w io.Writer, dns config.DNS, server netip.AddrPort) error {
	stub := server.String()
	if server.Port() == 53 {
		stub = server.Addr().String()
	}
	cache := max(1, int(time.Duration(dns.TTL)/time.Second)) // CoreDNS wants whole seconds
	stubDomains := map[string][]string{}
	fmt.Fprintln(w, "# CoreDNS: add to the Corefile (kubectl -n kube-system edit configmap coredns)")
	for _, z := range dns.Zones {
		zone := strings.ToLower(z.Suffix)
		fmt.Fprintf(w, "%s:53 {\n    errors\n    cache %d\n    forward . %s\n}\n", zone, cache, server)
		stubDomains[zone] = []string{stub}
	}
	js, err := json.Marshal(stubDomains)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n# kube-dns: data of its ConfigMap\nstubDomains: |\n  %s\n", js)
	return err
}
