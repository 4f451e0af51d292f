package cli

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// golden is the status of the example replica of package admin.
func golden(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("../admin/testdata/status.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// adminServer answers every request with answer. It returns its address.
func adminServer(t *testing.T, answer []byte) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(answer) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestStatus(t *testing.T) {
	addr := adminServer(t, golden(t))
	for _, tc := range []struct {
		command string
		want    []string
	}{
		{"status", []string{
			"device       pando-0.aspen.ts.net  100.64.0.7",
			"state        Running               control server not connected",
			"login        https://login.example.com/a/1",
			"key expires  2026-11-23T12:00:00Z",
			"health       not well",
			"check        tunnels",
			"router       router.aspen.ts.net   10.12.0.0/16",
			"direct 192.0.2.1:41641",
			"zone         internal.example.com  10.12.0.2",
			"resolver     10.12.0.2:53          answers",
			"limit        connections           1",
			"flows        2                     in progress",
		}},
		{"flows", []string{"FRONT", "10.244.1.7:40000  connect  <api>.internal.example.com:443  tailnet  10.12.3.4:443  3   5", "… and 1 more"}},
	} {
		t.Run(tc.command, func(t *testing.T) {
			stdout, _, err := run(t, nil, tc.command, "--admin", addr)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("pando %s does not print %q:\n%s", tc.command, want, stdout)
				}
			}
		})
	}
}

// TestTailscale checks that the program is the stock container's command if it is called
// tailscale.
func TestTailscale(t *testing.T) {
	var out bytes.Buffer
	err := Run(t.Context(), t.Context(), Env{
		Name:    "tailscale",
		Args:    []string{"--socket=/tmp/tailscaled.sock", "ip", "-4"},
		Environ: []string{"TS_ENABLE_HEALTH_CHECK=true", "TS_LOCAL_ADDR_PORT=" + adminServer(t, golden(t))},
		Stdout:  &out,
	})
	if err != nil || out.String() != "100.64.0.7\n" {
		t.Errorf("tailscale ip -4 prints %q, %v; want the device's address", &out, err)
	}
}

// TestOutputJSON checks that -o json and --json print what the replica answers.
func TestOutputJSON(t *testing.T) {
	explanation, err := json.Marshal(status.Explanation{
		Target: "db:5432",
		Class:  flow.Refused.String(),
		Flow:   &flow.Record{Request: flow.Request{Front: flow.Connect, Host: "db", Port: 5432}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		command string
		answer  []byte
		code    int
	}{
		{"status", golden(t), 0},
		{"flows", golden(t), 0},
		{"explain", explanation, 17},
	} {
		addr := adminServer(t, tc.answer)
		for _, flag := range []string{"-ojson", "--output=json", "--json"} {
			t.Run(tc.command+flag, func(t *testing.T) {
				stdout, _, err := run(t, nil, tc.command, flag, "--admin", addr)
				if stdout != string(tc.answer) {
					t.Errorf("printed %s, want %s", stdout, tc.answer)
				}
				if code, _ := ExitCode(err); (err != nil || tc.code != 0) && code != tc.code {
					t.Errorf("error = %v with exit status %d, want exit status %d", err, code, tc.code)
				}
			})
		}
	}
}

// TestSilentAdminPort checks that a port that accepts connections and never
// answers, or answers half, does not hold a command for ever.
func TestSilentAdminPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // connections wait in its queue
	release := make(chan struct{})
	half := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("{"))
		w.(http.Flusher).Flush()
		<-release
	}))
	defer half.Close()
	defer close(release)
	for _, command := range []string{"status", "flows", "explain"} {
		for name, addr := range map[string]string{"silent": ln.Addr().String(), "half_an_answer": half.Listener.Addr().String()} {
			t.Run(command+"_"+name, func(t *testing.T) {
				_, _, err := run(t, nil, command, "--admin", addr, "--timeout", "50ms")
				want := "no answer from the admin port at " + addr + " within 50ms (--timeout); check that a replica runs there"
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error = %v, want %q in it", err, want)
				}
				if code, printed := ExitCode(err); code != 1 || printed {
					t.Errorf("ExitCode = %d, %v; want 1, false", code, printed)
				}
			})
		}
	}
}

func TestAdminTimeoutDefaults(t *testing.T) {
	for command, want := range map[string]time.Duration{"status": 5 * time.Second, "flows": 5 * time.Second, "explain": 70 * time.Second} {
		cmd, _, err := newRoot(t.Context(), Env{}).Find([]string{command})
		if err != nil {
			t.Fatal(err)
		}
		if got := cmd.Flags().Lookup("timeout").DefValue; got != want.String() {
			t.Errorf("default --timeout of pando %s = %s, want %v", command, got, want)
		}
	}
}

func TestNotAnAdminPort(t *testing.T) {
	missing := httptest.NewServer(http.NotFoundHandler())
	defer missing.Close()
	for _, tc := range []struct{ name, addr, want string }{
		{"not_json", adminServer(t, []byte("<html>")), "is not the admin port of a replica"},
		{"not_found", missing.Listener.Addr().String(), "answered 404 Not Found: 404 page not found"},
		{"closed_port", "127.0.0.1:1", "connection refused; check that a replica runs there, with listen.admin set"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := run(t, nil, "status", "--admin", tc.addr)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q in it", err, tc.want)
			}
		})
	}
}
