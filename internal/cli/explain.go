package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// explainTimeout bounds the wait for an explanation, unless --timeout says
// otherwise. It is a little longer than a replica takes for one at most.
const explainTimeout = 70 * time.Second

// exitCodes are the exit statuses of pando explain, by class. They are an
// interface: scripts switch on them.
var exitCodes = map[flow.Class]int{
	flow.OK:              0,
	flow.Internal:        10,
	flow.BadRequest:      11,
	flow.Unauthenticated: 12,
	flow.Denied:          13,
	flow.NotFound:        14,
	flow.ResolveFailed:   15,
	flow.NoRoute:         16,
	flow.Refused:         17,
	flow.Unreachable:     18,
	flow.Timeout:         19,
	flow.Reset:           20,
	flow.BadResponse:     21,
	flow.Idle:            22,
	flow.Overloaded:      23,
	flow.NotReady:        24,
	flow.Cut:             25,
	flow.Canceled:        26,
	flow.Loop:            27,
	flow.BadCertificate:  28,
}

const explainLong = `Explain why a target can or cannot be reached. A running replica takes the road that clients
take to the target, and the command prints what each stage did: the policy, each source of names,
the peer that carries the route, TCP, TLS and HTTP. It ends with the class of the failure and what
to do about it. Each class has an exit status (docs/troubleshooting.md). Without a target, the replica
checks itself.

The command asks the replica's admin port (listen.admin), which answers only on the replica's own
loopback:

  kubectl exec pando-0 -- /pando explain https://api.internal.example.com/
  kubectl exec pando-0 -- /pando explain --client 10.244.1.7 db.internal.example.com:5432
  kubectl exec pando-0 -- /pando explain`

func explainCommand(env Env) *cobra.Command {
	var q status.ExplainRequest
	var caFile string
	var port adminPort
	var out output
	cmd := &cobra.Command{
		Use:   "explain [URL | HOST:PORT]",
		Short: "Explain why a target can or cannot be reached, stage by stage",
		Long:  explainLong,
		Args:  atMostOne("target"),
	}
	port.addFlags(cmd, explainTimeout)
	out.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&q.Client, "client", "", "judge the request as if it came from a client at this `address` (default 127.0.0.1)")
	f.StringVar(&q.User, "user", "", "`user:password` of a client, if auth.usersFile requires one")
	f.BoolVar(&q.TLS, "tls", false, "also test the TLS handshake of a HOST:PORT target; it is always tested for https URLs and port 443")
	f.BoolVar(&q.HTTP, "http", false, "also send an HTTP request for / to a HOST:PORT target; one is always sent for URLs")
	f.StringVar(&caFile, "ca", "", "`file` of authorities (PEM) that clients trust in addition to the system's")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			q.Target = args[0]
			if q.Target == "" {
				return usageError(cmd, "the target is empty; leave it out to check the replica itself")
			}
		}
		if err := readCA(&q, caFile); err != nil {
			return err
		}
		data, err := port.Post(cmd.Context(), "/explain", q)
		if err != nil {
			return err
		}
		var x status.Explanation
		if err := port.Decode(data, &x); err != nil {
			return err
		}
		if out.json() {
			if _, err := env.Stdout.Write(data); err != nil {
				return err
			}
		} else {
			printExplanation(env.Stdout, &x)
		}
		return exitOf(x.Class)
	}
	return cmd
}

// readCA adds the authorities in a file to q; an empty name means none.
func readCA(q *status.ExplainRequest, caFile string) error {
	if caFile == "" {
		return nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return fmt.Errorf("cannot read --ca %s: %w", caFile, cmp.Or(errors.Unwrap(err), err))
	}
	q.CA = string(pem)
	return nil
}

// exitOf returns the error that gives the process the exit status of a class; nil
// for "ok". A class that this version does not know, of a newer replica, is a failure
// all the same: it has the exit status of "internal".
func exitOf(class string) error {
	code := exitCodes[flow.Internal]
	for c := range exitCodes {
		if c.String() == class {
			code = exitCodes[c]
		}
	}
	if code == 0 {
		return nil
	}
	return exit(code)
}

// marks are the words before each stage.
var marks = map[status.Outcome]string{
	status.OK:   "ok",
	status.Warn: "WARN",
	status.Fail: "FAIL",
}

func printExplanation(w io.Writer, x *status.Explanation) {
	subject := x.Target
	switch {
	case subject == "":
		subject = "the replica itself"
	case x.Client != "":
		subject += ", for a client at " + x.Client
	}
	if x.Device != "" {
		subject += " on " + x.Device
	}
	fmt.Fprintf(w, "%s\n\n", subject)
	printStages(w, x.Stages)
	if x.Class != flow.OK.String() {
		fmt.Fprintf(w, "\nclass: %s\n", x.Class)
		if x.Hint != "" {
			fmt.Fprintf(w, "what to do: %s\n", x.Hint)
		}
		return
	}
	isWarning := func(s status.Stage) bool { return s.Status == status.Warn }
	if slices.ContainsFunc(x.Stages, isWarning) {
		fmt.Fprintln(w, "\nNo failure, but look at what is marked WARN.")
		return
	}
	fmt.Fprintln(w, "\nNo failure.")
}

func printStages(w io.Writer, stages []status.Stage) {
	t := newTable(w)
	defer t.Flush()
	for _, s := range stages {
		took := ""
		if s.Millis > 0 {
			took = fmt.Sprintf("  (%.1f ms)", s.Millis)
		}
		t.row(marks[s.Status], s.Name, s.Says+took)
		for _, d := range s.Detail {
			t.row("", "", "  "+d)
		}
	}
}
