//go:build clients && linux

package clients

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
)

// goClient is the client in Go: get URL... or put FILE URL. It takes the
// variables.
func goClient(args []string) int {
	if err := runGoClient(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runGoClient(args []string) error {
	method := http.MethodGet
	var body []byte
	urls := args[1:]
	if args[0] == "put" {
		method = http.MethodPut
		var err error
		body, err = os.ReadFile(args[1])
		if err != nil {
			return err
		}
		urls = args[2:]
	}
	for _, url := range urls {
		req, err := http.NewRequest(method, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode >= 300 {
			return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(b))
		}
		os.Stdout.Write(b)
	}
	return nil
}
