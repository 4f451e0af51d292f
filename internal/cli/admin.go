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
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// adminPort is the admin port of a replica, as the flags of a command give it.
type adminPort struct {
	address string        // host:port
	timeout time.Duration // bounds one request and its answer
}

// addFlags adds --admin and --timeout to cmd.
func (a *adminPort) addFlags(cmd *cobra.Command, timeout time.Duration) {
	a.address = "127.0.0.1:9002"
	a.timeout = timeout
	cmd.Flags().Var(&flagValue[string]{&a.address, "string", parseHostPort}, "admin", "`address` of the replica's admin port, host:port")
	cmd.Flags().Var(&flagValue[time.Duration]{&a.timeout, "duration", parseTimeout}, "timeout", "how long to wait for the replica's answer")
}

// get requests a page and returns its body.
func (a *adminPort) get(ctx context.Context, path string) ([]byte, error) {
	return a.do(ctx, http.MethodGet, path, nil)
}

// post sends body as JSON to a page and returns the body of the answer.
func (a *adminPort) post(ctx context.Context, path string, body any) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return a.do(ctx, http.MethodPost, path, data)
}

func (a *adminPort) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+a.address+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("invalid --admin %q: %w", a.address, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	transport := &http.Transport{DisableKeepAlives: true} // without a proxy, which the variables may name
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, a.noAnswer(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, a.noAnswer(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the admin port at %s answered %s: %s", a.address, resp.Status, strings.TrimSpace(string(data)))
	}
	return data, nil
}

// noAnswer returns the error of a request without an answer, with the remedy.
func (a *adminPort) noAnswer(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no answer from the admin port at %s within %v (--timeout); check that a replica runs there, with listen.admin set", a.address, a.timeout)
	}
	return fmt.Errorf("no answer from the admin port at %s: %w; check that a replica runs there, with listen.admin set", a.address, err)
}

// decode reads an answer of the admin port.
func (a *adminPort) decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s is not the admin port of a replica: %w", a.address, err)
	}
	return nil
}
