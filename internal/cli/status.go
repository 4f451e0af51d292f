package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pandoproxy/pando/internal/status"
)

// statusTime bounds the wait for a replica's answer.
const statusTime = 10 * time.Second

func statusCommand(env Env) *cobra.Command {
	return askCommand(env, "status", "Show a running replica: its device, its peers and routes, its resolvers and limits", 0, printStatus)
}

func flowsCommand(env Env) *cobra.Command {
	return askCommand(env, "flows", "List the flows in progress of a running replica, the oldest first", 1000, printFlows)
}

// askCommand is a command that asks the admin port of a replica.
func askCommand(env Env, name, short string, flows int, show func(io.Writer, *status.Replica)) *cobra.Command {
	var address string
	var asJSON bool
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		Long: short + ".\n\nIt asks the replica's admin port (listen.admin), in a pod for example:\n\n  kubectl exec pando-0 -- /pando " + name,
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, err := fetchStatus(cmd.Context(), address, flows)
			if err != nil {
				return err
			}
			if asJSON {
				_, err := env.Stdout.Write(raw)
				return err
			}
			var st status.Replica
			if err := json.Unmarshal(raw, &st); err != nil {
				return fmt.Errorf("%s: not the admin port of a replica: %w", address, err)
			}
			show(env.Stdout, &st)
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "admin", "127.0.0.1:9002", "admin port of the replica, host:port")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what the replica answers, as JSON")
	if flows > 0 {
		cmd.Flags().IntVar(&flows, "limit", flows, "list at most so many")
	}
	return cmd
}

// checkAdmin reports an address that is none.
func checkAdmin(address string) error {
	host, port, err := net.SplitHostPort(address)
	if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || strings.ContainsAny(host, "/ ") {
		return fmt.Errorf("--admin: %q is no address of an admin port; write host:port, such as 127.0.0.1:9002", address)
	}
	return nil
}

func fetchStatus(ctx context.Context, address string, flows int) ([]byte, error) {
	if err := checkAdmin(address); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/status?flows=%d", address, flows), nil)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	return askAdmin(req, address)
}

// askAdmin puts a request to the admin port at address and returns what it answers.
func askAdmin(req *http.Request, address string) ([]byte, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is ours that is asked
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no answer from the admin port at %s: %w; does a replica run there, with listen.admin set?", address, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %s: %s", resp.Status, strings.TrimSpace(string(raw)))
	}
	if err != nil {
		return nil, fmt.Errorf("the admin port at %s: %w", address, err)
	}
	return raw, nil
}

func printStatus(w io.Writer, st *status.Replica) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	row := func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, strings.ReplaceAll(fmt.Sprint(c), "\n", "; "))
		}
		fmt.Fprintln(t)
	}
	d := st.Tailnet
	row("device", orNone(d.Name), status.Join(d.Addrs))
	row("state", d.State, map[bool]string{true: "control server connected", false: "control server away"}[d.ControlConnected])
	if d.KeyExpiry != nil {
		row("key expires", d.KeyExpiry.Format(time.RFC3339), "in "+time.Until(*d.KeyExpiry).Round(time.Hour).String())
	}
	for _, h := range d.Health {
		row("health", h)
	}
	row("ready", st.Ready, "pando "+st.Version+", "+st.Mode+" mode, up "+time.Since(st.Started).Round(time.Second).String())
	for _, c := range st.Checks {
		if c.Err != nil {
			row("check", c.Name, c.Err)
		}
		if c.Note != "" {
			row("check", c.Name, c.Note)
		}
	}
	for _, p := range st.Peers {
		if len(p.Routes) == 0 {
			continue
		}
		handshake := "no handshake yet"
		if p.LastHandshake != nil {
			handshake = "handshake " + time.Since(*p.LastHandshake).Round(time.Second).String() + " ago"
		}
		row("router", p.Name, status.Join(p.Routes), map[bool]string{true: "online", false: "OFFLINE"}[p.Online], orNone(p.Path), handshake)
	}
	for _, z := range st.Zones {
		resolvers := strings.Join(z.Resolvers, " ")
		if resolvers == "" {
			resolvers = "no resolver: its names do not exist, but for the tailnet's own"
		}
		row("zone", z.Suffix, resolvers)
	}
	for _, r := range st.Resolvers {
		says := "answers"
		if r.Fails() {
			says = "FAILS: " + r.Err
		}
		row("resolver", r.Server, says)
	}
	for _, l := range st.Limits {
		most := "no limit"
		if l.Most > 0 {
			most = fmt.Sprint("of ", l.Most)
		}
		row("limit", l.Name, fmt.Sprint(l.Now), most, l.Note)
	}
	row("flows", st.FlowsTotal, "in progress")
}

func printFlows(w io.Writer, st *status.Replica) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "AGE\tCLIENT\tFRONT\tTARGET\tPATH\tADDRESS\tUP\tDOWN")
	for _, f := range st.Flows {
		addr := "-"
		if f.Addr.IsValid() {
			addr = f.Addr.String()
		}
		fmt.Fprintf(t, "%v\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", time.Since(f.Start).Round(time.Second), f.Client, f.Front, f.Target(), orNone(string(f.Path)), addr, f.Up, f.Down)
	}
	if n := st.FlowsTotal - len(st.Flows); n > 0 {
		fmt.Fprintf(t, "… and %d more\n", n)
	}
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
