package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pandoproxy/pando/internal/status"
)

// statusTimeout bounds the wait for a replica's status, unless --timeout says
// otherwise.
const statusTimeout = 5 * time.Second

// mostFlows is how many flows pando flows lists, unless --limit says otherwise.
const mostFlows = 1000

func statusCommand(env Env) *cobra.Command {
	const short = "Show a running replica: its device, its peers and routes, its resolvers and limits"
	return showCommand(env, "status", short, new(int), printStatus)
}

func flowsCommand(env Env) *cobra.Command {
	flows := new(int)
	const short = "List the flows in progress of a running replica, the oldest first"
	cmd := showCommand(env, "flows", short, flows, printFlows)
	*flows = mostFlows
	cmd.Flags().Var(&flagValue[int]{flows, "int", parseCount}, "limit", "list at most this many flows")
	return cmd
}

// showCommand returns a command that shows the status of a replica, with the
// oldest flows, at most that many.
func showCommand(env Env, name, short string, flows *int, show func(io.Writer, *status.Replica)) *cobra.Command {
	var port adminPort
	var out output
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Long: short + ".\n\nThe command asks the replica's admin port (listen.admin), for example in a pod:\n\n" +
			"  kubectl exec pando-0 -- /pando " + name,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := port.Get(cmd.Context(), fmt.Sprintf("/status?flows=%d", *flows))
			if err != nil {
				return err
			}
			var st status.Replica
			if err := port.Decode(data, &st); err != nil {
				return err
			}
			if out.json() {
				_, err := env.Stdout.Write(data)
				return err
			}
			show(env.Stdout, &st)
			return nil
		},
	}
	port.addFlags(cmd, statusTimeout)
	out.addFlags(cmd)
	return cmd
}

// table writes rows of cells in columns.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// row writes one row. A cell is on one line, whatever its text.
func (t table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		fmt.Fprint(t, oneLine(fmt.Sprint(c)))
	}
	fmt.Fprintln(t)
}

// oneLine returns text with its lines joined.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

func printStatus(w io.Writer, st *status.Replica) {
	t := newTable(w)
	defer t.Flush()
	printDevice(t, st)
	for _, p := range st.Peers {
		printRouter(t, p)
	}
	for _, z := range st.Zones {
		resolvers := strings.Join(z.Resolvers, " ")
		if resolvers == "" {
			resolvers = "no resolver: only names of the tailnet itself exist in this zone"
		}
		t.row("zone", z.Suffix, resolvers)
	}
	for _, r := range st.Resolvers {
		t.row("resolver", r.Server, r.State())
	}
	for _, l := range st.Limits {
		most := "no limit"
		if l.Most > 0 {
			most = fmt.Sprint("of ", l.Most)
		}
		t.row("limit", l.Name, l.Now, most, l.Note)
	}
	t.row("flows", st.FlowsTotal, "in progress")
}

func printDevice(t table, st *status.Replica) {
	d := st.Tailnet
	control := "control server connected"
	if !d.ControlConnected {
		control = "control server not connected"
	}
	t.row("device", orDash(d.Name), status.Join(d.Addrs))
	t.row("state", d.State, control)
	if d.KeyExpiry != nil {
		t.row("key expires", d.KeyExpiry.Format(time.RFC3339), "in "+time.Until(*d.KeyExpiry).Round(time.Hour).String())
	}
	if d.LoginURL != "" {
		t.row("login", d.LoginURL)
	}
	for _, h := range d.Health {
		t.row("health", h)
	}
	t.row("ready", st.Ready, fmt.Sprintf("pando %s, %s mode, up %v", st.Version, st.Mode, age(st.Started)))
	for _, c := range st.Checks {
		if c.Err != nil {
			t.row("check", c.Name, c.Err)
		}
		if c.Note != "" {
			t.row("check", c.Name, c.Note)
		}
	}
}

// printRouter prints a peer that carries routes.
func printRouter(t table, p status.Peer) {
	if len(p.Routes) == 0 {
		return
	}
	online := "online"
	if !p.Online {
		online = "OFFLINE"
	}
	handshake := "no handshake yet"
	if p.LastHandshake != nil {
		handshake = fmt.Sprintf("handshake %v ago", age(*p.LastHandshake))
	}
	t.row("router", p.Name, status.Join(p.Routes), online, orDash(p.Path), handshake)
}

func printFlows(w io.Writer, st *status.Replica) {
	t := newTable(w)
	defer t.Flush()
	t.row("AGE", "CLIENT", "FRONT", "TARGET", "PATH", "ADDRESS", "UP", "DOWN")
	for _, f := range st.Flows {
		addr := "-"
		if f.Addr.IsValid() {
			addr = f.Addr.String()
		}
		t.row(age(f.Start), f.Client, f.Front, f.Target(), orDash(string(f.Path)), addr, f.Up, f.Down)
	}
	if n := st.FlowsTotal - len(st.Flows); n > 0 {
		fmt.Fprintf(t, "… and %d more\n", n)
	}
}

// age returns the time since t, in whole seconds.
func age(t time.Time) time.Duration { return time.Since(t).Round(time.Second) }

// orDash returns text, or a dash in place of an empty one.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
