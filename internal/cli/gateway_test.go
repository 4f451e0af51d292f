package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
)

// TestGatewaySaysThatNoKeyIsSet checks that a replica without anything to log in
// with says so, before it starts, in one line.
func TestGatewaySaysThatNoKeyIsSet(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := ln.Addr().String()
	ln.Close()
	for _, tc := range []struct {
		name string
		args []string
		want int // lines
	}{
		{"no_key", nil, 1},
		{"key", []string{"--tailnet-auth-key=tskey-auth-x"}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stderr bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // it starts and ends
			args := append([]string{"gateway", "--listen-proxy=" + free, "--listen-admin=", "--tailnet-control-url=http://127.0.0.1:1"}, tc.args...)
			if err := Run(ctx, ctx, Env{Args: args, Stdout: &stderr, Stderr: &stderr}); err != nil {
				t.Logf("Run: %v", err)
			}
			count := 0
			for line := range strings.Lines(stderr.String()) {
				var entry struct{ Level, Msg, Hint string }
				if err := json.Unmarshal([]byte(line), &entry); err != nil {
					t.Fatalf("log line %q: %v", line, err)
				}
				if entry.Msg == "no auth key is set" && entry.Level == "WARN" && strings.Contains(entry.Hint, "tailnet.authKeyFile") {
					count++
				}
			}
			if count != tc.want {
				t.Errorf("the log says %d times that no auth key is set, want %d:\n%s", count, tc.want, &stderr)
			}
		})
	}
}

// TestStockWarns checks that the log of a replica with the stock container's variables
// warns of a value that was not understood, and only notes what is otherwise
// different. It starts all the same.
func TestStockWarns(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := ln.Addr().String()
	ln.Close()
	var stderr bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it starts and ends
	environ := []string{"TS_USERSPACE=perhaps", "TS_NEW_THING=1", "TS_AUTHKEY=tskey-auth-x\n", "TS_SOCKS5_SERVER=" + free, "TS_EXTRA_ARGS=--login-server=http://127.0.0.1:1"}
	if err := Run(ctx, ctx, Env{Environ: environ, Stdout: &stderr, Stderr: &stderr}); err != nil {
		t.Logf("Run: %v", err)
	}
	levels := map[string]string{}
	for line := range strings.Lines(stderr.String()) {
		var entry struct{ Level, Msg, Note string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		name, _, _ := strings.Cut(entry.Note, " ")
		levels[strings.TrimSuffix(name, ":")] = entry.Level
	}
	if levels["TS_USERSPACE"] != "WARN" || levels["TS_NEW_THING"] != "INFO" || !strings.Contains(stderr.String(), `"msg":"serving"`) {
		t.Errorf("the log has the notes %v and says\n%s\nwant a warning of TS_USERSPACE, a note on TS_NEW_THING, and that it serves", levels, &stderr)
	}
}

func TestLacksKey(t *testing.T) {
	empty := t.TempDir()
	loggedIn := t.TempDir()
	if err := os.WriteFile(filepath.Join(loggedIn, "tailscaled.state"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		conf config.Tailnet
		want bool
	}{
		{"nothing", config.Tailnet{}, true},
		{"key", config.Tailnet{AuthKey: "k"}, false},
		{"key_file", config.Tailnet{AuthKeyFile: "/k"}, false},
		{"client_secret", config.Tailnet{ClientSecret: "k"}, false},
		{"client_secret_file", config.Tailnet{ClientSecretFile: "/k"}, false},
		{"kube_secret", config.Tailnet{KubeSecret: "pando-0"}, false},
		{"empty_state_directory", config.Tailnet{StateDir: empty}, true},
		{"missing_state_directory", config.Tailnet{StateDir: filepath.Join(empty, "new")}, true},
		{"state_of_an_earlier_login", config.Tailnet{StateDir: loggedIn}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := lacksKey(tc.conf); got != tc.want {
				t.Errorf("lacksKey = %v, want %v", got, tc.want)
			}
		})
	}
}
