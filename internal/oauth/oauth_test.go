package oauth_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/oauth"
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
	client, err := oauth.New("tskey-client-x?ephemeral=false&preauthorized=true&baseURL="+api, []string{"tag:k8s"})
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
		client, err := oauth.New(c.secret, []string{"tag:k8s"})
		if err == nil {
			_, err = client.Mint(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "tskey-") {
			t.Errorf("New(%q) or Mint() = %v, want an error with %q and without the secret", c.secret, err, c.want)
		}
	}
}
