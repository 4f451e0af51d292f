package oauth_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/oauth"
	"github.com/pandoproxy/pando/internal/podproxy"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testnet"
)

// keyAPI replaces the API that creates auth keys, as documented at
// https://tailscale.com/api. Tests cannot reach the real API. The first failures
// requests for a key fail.
func keyAPI(t *testing.T, failures int32) (url string, minted *atomic.Int32) {
	minted = new(atomic.Int32)
	var asked atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/oauth/token", func(w http.ResponseWriter, r *http.Request) {
		_, basic, _ := r.BasicAuth()
		if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_secret") != "tskey-client-x" && basic != "tskey-client-x" {
			http.Error(w, `{"message":"API token invalid"}`, http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"access_token": "tskey-api-y", "token_type": "Bearer", "expires_in": 3600})
	})
	mux.HandleFunc("POST /api/v2/tailnet/-/keys", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Capabilities struct {
				Devices struct {
					Create struct {
						Reusable, Ephemeral, Preauthorized bool
						Tags                               []string
					}
				}
			}
		}
		json.NewDecoder(r.Body).Decode(&body)
		create := body.Capabilities.Devices.Create
		switch {
		case asked.Add(1) <= failures:
			http.Error(w, `{"message":"try again"}`, http.StatusInternalServerError)
		case r.Header.Get("Authorization") != "Bearer tskey-api-y":
			http.Error(w, `{"message":"no token"}`, http.StatusUnauthorized)
		case create.Ephemeral || !create.Preauthorized || create.Reusable || len(create.Tags) != 1 || create.Tags[0] != "tag:k8s":
			http.Error(w, `{"message":"wrong settings"}`, http.StatusBadRequest)
		default:
			minted.Add(1)
			json.NewEncoder(w).Encode(map[string]any{"id": "k1", "key": testnet.AuthKey})
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, minted
}

// TestLogsIn checks that a node with an OAuth client logs in without an auth key,
// even if the API fails at first.
func TestLogsIn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	nw, err := testnet.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nw.Close()
	api, minted := keyAPI(t, 1)
	client, err := oauth.New("tskey-client-x?ephemeral=false&preauthorized=true&baseURL="+api, []string{"tag:k8s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := tailnet.Start(ctx, tailnet.Options{Hostname: "minted", ControlURL: nw.URL(), Tags: []string{"tag:k8s"}, NextKey: client.Mint})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Wait(ctx); err != nil {
		t.Error(err)
	}
	if got := minted.Load(); got != 1 {
		t.Errorf("the API created %d keys, want 1", got)
	}
}

// TestErrors checks that an error names its cause and holds no secret.
func TestErrors(t *testing.T) {
	api, _ := keyAPI(t, 0)
	for _, c := range []struct{ secret, want string }{
		{"tskey-client-x?ephemeral=maybe", "option ephemeral"},
		{"tskey-client-x?expiry=1", "option expiry: unknown option"},
		{"tskey-client-x?baseURL=api", "option baseURL: not an http or https URL"},
		{"tskey-client-wrong?baseURL=" + api, "API token invalid"},
		{"tskey-client-x?baseURL=" + api, "wrong settings"},
	} {
		client, err := oauth.New(c.secret, []string{"tag:k8s"}, nil)
		if err == nil {
			_, err = client.Mint(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "tskey-") {
			t.Errorf("New(%q) or Mint() = %v, want an error with %q and without the secret", c.secret, err, c.want)
		}
	}
}

// TestThroughProxy checks that the API is reached through the proxy of the environment,
// with its password, and without it where NO_PROXY says so.
func TestThroughProxy(t *testing.T) {
	api, minted := keyAPI(t, 0)
	forwarded := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := parseBasic(r.Header.Get("Proxy-Authorization")); user != "ann" || password != "s3cret" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		forwarded++
		out, err := http.NewRequestWithContext(r.Context(), r.Method, api+r.URL.Path, r.Body) // the name is the proxy's own
		if err != nil {
			t.Error(err)
			return
		}
		out.Header = r.Header.Clone()
		resp, err := http.DefaultClient.Do(out)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}))
	defer proxy.Close()
	with := "http_proxy=" + strings.Replace(proxy.URL, "://", "://ann:s3cret@", 1)
	wrong := "http_proxy=" + strings.Replace(proxy.URL, "://", "://ann:wrong@", 1)
	const name = "http://api.example.test"
	outside := onOutsideAddr(t, api)
	for _, c := range []struct {
		name    string
		environ []string
		url     string
		through int // requests through the proxy
		err     string
	}{
		{"through_the_proxy", []string{with}, name, 2, ""},
		{"wrong_password", []string{wrong}, name, 0, "407"},
		{"loopback", []string{with}, api, 0, ""},
		{"other_no_proxy", []string{with, "NO_PROXY=.other.test"}, outside.URL, 2, ""},
		{"no_proxy", []string{with, "NO_PROXY=.other.test," + outside.Listener.Addr().(*net.TCPAddr).IP.String()}, outside.URL, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			forwarded = 0
			before := minted.Load()
			p := podproxy.New(podproxy.Options{Environ: c.environ})
			client, err := oauth.New("tskey-client-x?ephemeral=false&preauthorized=true&baseURL="+c.url, []string{"tag:k8s"}, p)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.Mint(t.Context())
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("Mint: %v, want %q", err, c.err)
			}
			if forwarded != c.through {
				t.Errorf("the proxy passed %d requests on, want %d", forwarded, c.through)
			}
			if got := minted.Load() - before; (got == 1) != (c.err == "") {
				t.Errorf("the API created %d keys", got)
			}
		})
	}
}

// onOutsideAddr starts a server on an address that is not loopback, for which a proxy is
// never used. It passes requests on to the server at api.
func onOutsideAddr(t *testing.T, api string) *httptest.Server {
	t.Helper()
	to, err := url.Parse(api)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.To4() == nil || n.IP.IsLoopback() {
			continue
		}
		s := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(to))
		s.Listener.Close()
		s.Listener, err = net.Listen("tcp", net.JoinHostPort(n.IP.String(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(s.Close)
		return s
	}
	t.Skip("SKIPPED, NOT TESTED: this host has no IPv4 address but loopback")
	return nil
}

// parseBasic reads the credentials of a Basic authorization (RFC 7617).
func parseBasic(value string) (user, password string, ok bool) {
	r := http.Request{Header: http.Header{"Authorization": {value}}}
	return r.BasicAuth()
}
