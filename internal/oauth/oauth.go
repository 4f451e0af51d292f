// Package oauth creates auth keys with the secret of a tailnet's OAuth client, so
// that a fleet does not depend on the lifetime of one key
// (https://tailscale.com/kb/1215/oauth-clients).
package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/pandoproxy/pando/internal/podproxy"
)

// Client creates auth keys.
type Client struct {
	secret   string
	api      string
	settings keySettings
	proxy    *podproxy.Proxy
}

// keySettings is devices.create in the API's request.
type keySettings struct {
	Reusable      bool     `json:"reusable"`
	Ephemeral     bool     `json:"ephemeral"`
	Preauthorized bool     `json:"preauthorized"`
	Tags          []string `json:"tags"`
}

// New returns a client for secret, whose keys give devices the tags. It reaches the API
// through proxy; nil means without one. Options may follow the secret, as with the stock client:
// "?ephemeral=false&preauthorized=true&baseURL=https://…". The defaults are
// ephemeral=true and preauthorized=false.
func New(secret string, tags []string, proxy *podproxy.Proxy) (*Client, error) {
	secret, options, _ := strings.Cut(secret, "?")
	values, err := url.ParseQuery(options)
	if err != nil {
		return nil, errors.New("OAuth client secret: cannot parse the options after the question mark")
	}
	c := &Client{
		secret:   secret,
		api:      "https://api.tailscale.com",
		settings: keySettings{Ephemeral: true, Tags: tags},
		proxy:    proxy,
	}
	for name := range values {
		v := values.Get(name)
		var err error
		switch name {
		case "ephemeral":
			c.settings.Ephemeral, err = strconv.ParseBool(v)
		case "preauthorized":
			c.settings.Preauthorized, err = strconv.ParseBool(v)
		case "baseURL":
			c.api = strings.TrimSuffix(v, "/")
			if !strings.HasPrefix(v, "https://") && !strings.HasPrefix(v, "http://") {
				err = errors.New("not an http or https URL")
			}
		default:
			err = errors.New("unknown option: use ephemeral, preauthorized or baseURL")
		}
		if err != nil {
			return nil, fmt.Errorf("OAuth client secret: option %s: %w", name, err)
		}
	}
	return c, nil
}

// Mint returns a new auth key for one login. It takes 30 s at most. The error holds
// the answer of the API, and never the secret.
func (c *Client) Mint(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// The API finds the client by its secret, but the library needs an ID.
	conf := clientcredentials.Config{ClientID: "pando", ClientSecret: c.secret, TokenURL: c.api + "/api/v2/oauth/token"}
	body, err := json.Marshal(map[string]any{
		"description":  "pando",
		"capabilities": map[string]any{"devices": map[string]any{"create": c.settings}},
	})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.api+"/api/v2/tailnet/-/keys", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	transport := c.proxy.Transport()
	defer transport.CloseIdleConnections()
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: transport})
	resp, err := conf.Client(ctx).Do(req)
	if err != nil {
		return "", fmt.Errorf("cannot create an auth key: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("cannot create an auth key: %w", err)
	}
	var answer struct{ Key, Message string }
	if err := json.Unmarshal(b, &answer); resp.StatusCode != http.StatusOK || err != nil || answer.Key == "" {
		return "", fmt.Errorf("cannot create an auth key: the API answered %s %s", resp.Status, answer.Message)
	}
	return answer.Key, nil
}
