// Package adminport asks the admin port of a replica. It does not print.
package adminport

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
)

// Port is the admin port of a replica.
type Port struct {
	Address string        // host:port
	Timeout time.Duration // bounds one request and its answer
}

// Get requests a page and returns its body.
func (p *Port) Get(ctx context.Context, path string) ([]byte, error) {
	return p.do(ctx, http.MethodGet, path, nil)
}

// Post sends body as JSON to a page and returns the body of the answer.
func (p *Port) Post(ctx context.Context, path string, body any) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return p.do(ctx, http.MethodPost, path, data)
}

func (p *Port) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.Address+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("invalid --admin %q: %w", p.Address, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	transport := &http.Transport{DisableKeepAlives: true} // without a proxy, which the variables may name
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, p.noAnswer(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, p.noAnswer(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the admin port at %s answered %s: %s", p.Address, resp.Status, strings.TrimSpace(string(data)))
	}
	return data, nil
}

// noAnswer returns the error of a request without an answer, with the remedy.
func (p *Port) noAnswer(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no answer from the admin port at %s within %v (--timeout); check that a replica runs there, with listen.admin set", p.Address, p.Timeout)
	}
	return fmt.Errorf("no answer from the admin port at %s: %w; check that a replica runs there, with listen.admin set", p.Address, err)
}

// Decode reads an answer of the admin port.
func (p *Port) Decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s is not the admin port of a replica: %w", p.Address, err)
	}
	return nil
}
