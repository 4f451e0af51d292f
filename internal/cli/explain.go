package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// explainTime bounds the wait for a replica's answer: a little longer than the
// replica takes itself.
const explainTime = 70 * time.Second

// exitCodes are the exit statuses of pando explain, by class. They are an
// interface: scripts switch on them.
var exitCodes = map[flow.Class]int{
	flow.OK: 0, flow.Internal: 10, flow.BadRequest: 11, flow.Unauthenticated: 12, flow.Denied: 13, flow.NotFound: 14,
	flow.ResolveFailed: 15, flow.NoRoute: 16, flow.Refused: 17, flow.Unreachable: 18, flow.Timeout: 19, flow.Reset: 20,
	flow.BadResponse: 21, flow.Idle: 22, flow.Overloaded: 23, flow.NotReady: 24, flow.Cut: 25, flow.Canceled: 26, flow.Loop: 27,
}

// exit is an error that was told already, and wants an exit status of its own.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode is the process's exit status for an error of Run, and told says that
// it need not be printed any more.
func ExitCode(err error) (code int, told bool) {
	if e, ok := errors.AsType[exit](err); ok {
		return int(e), true
	}
	return 1, false
}

func explainCommand(env Env) *cobra.Command {
	var q status.ExplainRequest
	var address, ca string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain [URL | HOST:PORT]",
		Short: "Tell why a target can or can't be reached: walk the road on a running replica",
		Long: "Walk the road that clients take to a target, on a running replica, and tell what each stage\n" +
			"did: the policy, each source of names, the peer that carries the route, TCP, TLS and HTTP. It\n" +
			"ends with the class of the failure and what to do, and with an exit status for each class\n" +
			"(docs/operations.md). Without a target it checks the replica itself.\n\n" +
			"It asks the replica's admin port from the replica's own loopback:\n\n" +
			"  kubectl exec pando-0 -- /pando explain https://api.internal.example.com/\n" +
			"  kubectl exec pando-0 -- /pando explain --client 10.244.1.7 db.internal.example.com:5432\n" +
			"  kubectl exec pando-0 -- /pando explain",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if q.Target = args[0]; q.Target == "" {
					return errors.New("the target is empty; leave it out to check the replica itself")
				}
			}
			if ca != "" {
				pem, err := os.ReadFile(ca)
				if err != nil {
					return fmt.Errorf("--ca: %w", err)
				}
				q.CA = string(pem)
			}
			raw, err := askExplain(cmd.Context(), address, q)
			if err != nil {
				return err
			}
			var r status.Explanation
			if err := json.Unmarshal(raw, &r); err != nil {
				return fmt.Errorf("%s: not the admin port of a replica: %w", address, err)
			}
			if asJSON {
				if _, err := env.Stdout.Write(raw); err != nil {
					return err
				}
			} else {
				printReport(env.Stdout, &r)
			}
			for class, code := range exitCodes {
				if class.String() == r.Class && code != 0 {
					return exit(code)
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "admin", "127.0.0.1:9002", "admin port of the replica, host:port")
	f.StringVar(&q.Client, "client", "", "ask for a client at this address, whom the policy may treat in a way of its own")
	f.StringVar(&q.User, "user", "", "user:password of a client, where auth.usersFile asks for one")
	f.BoolVar(&q.TLS, "tls", false, "shake hands with a target that is no https URL (port 443 is always tried)")
	f.BoolVar(&q.HTTP, "http", false, "ask a target that is no URL for /")
	f.StringVar(&ca, "ca", "", "file with authorities (PEM) that clients trust beside the system's")
	f.BoolVar(&asJSON, "json", false, "print what the replica answers, as JSON")
	return cmd
}

func askExplain(ctx context.Context, address string, q status.ExplainRequest) ([]byte, error) {
	if err := checkAdmin(address); err != nil {
		return nil, err
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, explainTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/explain", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	return askAdmin(req, address)
}

var marks = map[status.Outcome]string{status.OK: "ok", status.Warn: "WARN", status.Fail: "FAIL"}

func printReport(w io.Writer, r *status.Explanation) {
	what, where := r.Target, r.Device
	if what == "" {
		what = "the replica itself"
	} else if r.Client != "" {
		what += ", for a client at " + r.Client
	}
	if where != "" {
		where = " on " + where
	}
	fmt.Fprintf(w, "%s%s\n\n", what, where)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range r.Stages {
		took := ""
		if s.Millis > 0 {
			took = fmt.Sprintf("  (%.1f ms)", s.Millis)
		}
		fmt.Fprintf(t, "%s\t%s\t%s%s\n", marks[s.Status], s.Name, strings.ReplaceAll(s.Says, "\n", "; "), took)
		for _, d := range s.Detail {
			fmt.Fprintf(t, "\t\t  %s\n", strings.ReplaceAll(d, "\n", "; "))
		}
	}
	t.Flush()
	if r.Class == flow.OK.String() {
		end := "Nothing is in the way."
		if slices.ContainsFunc(r.Stages, func(s status.Stage) bool { return s.Status == status.Warn }) {
			end = "Nothing is in the way, but see what is marked WARN."
		}
		fmt.Fprintln(w, "\n"+end)
		return
	}
	fmt.Fprintf(w, "\nclass: %s\n", r.Class)
	if r.Hint != "" {
		fmt.Fprintf(w, "what to do: %s\n", r.Hint)
	}
}
