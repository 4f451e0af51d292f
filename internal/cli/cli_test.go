package cli

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
)

// run runs one command and returns what it printed and its error.
func run(t *testing.T, environ []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	err = Run(t.Context(), t.Context(), Env{Args: args, Environ: environ, Stdout: &out, Stderr: &errOut})
	return out.String(), errOut.String(), err
}

func configFile(t *testing.T, doc string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pando.yaml")
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCheck(t *testing.T) {
	good := configFile(t, "listen: {proxy: ':3128'}\n")
	negative := configFile(t, "drain: {timeout: -1s}\n")
	many := configFile(t, "lisen: {}\ndrain: {timeout: -1s}\nlog: {level: loud}\n")
	users, noUsers := configFile(t, "ann:secret\n"), configFile(t, "ann\n")
	for _, tc := range []struct {
		name string
		env  []string
		args []string
		want []string // words of the error; none means that it is valid
	}{
		{"nothing", nil, nil, nil},
		{"good", nil, []string{"--config", good}, nil},
		{"good_by_variable", []string{"PANDO_CONFIG=" + good}, nil, nil},
		{"all_mistakes", nil, []string{"--config", many}, []string{many + " is not valid:", "lisen: no such key", "drain.timeout: -1s is negative", `log.level: "loud" is not known`}},
		{"bad_by_variable", []string{"PANDO_CONFIG=" + negative}, nil, []string{negative + " is not valid:"}},
		{"flag_over_variable_path", []string{"PANDO_CONFIG=" + negative}, []string{"--config", good}, nil},
		{"missing_file", nil, []string{"--config", "/nonexistent/pando.yaml"}, []string{"/nonexistent/pando.yaml", "no such file"}},
		{"flag_over_file", nil, []string{"--config", negative, "--drain-timeout", "1s"}, nil},
		{"flag_over_env", []string{"PANDO_LOG_LEVEL=loud"}, []string{"--log-level=warn"}, nil},
		{"env_over_file", []string{"PANDO_DRAIN_TIMEOUT=1s"}, []string{"--config", negative}, nil},
		{"bad_flag", nil, []string{"--drain-timeout", "soon"}, []string{"the configuration is not valid:", `--drain-timeout: "soon" is no duration`}},
		{"bad_bool_flag", nil, []string{"--tailnet-ephemeral=ja"}, []string{`--tailnet-ephemeral: "ja" is neither true nor false`}},
		{"bool_flag_alone", nil, []string{"--tailnet-ephemeral", "--listen-reuse-port"}, nil},
		{"bad_env", []string{"PANDO_TYPO=1"}, nil, []string{"PANDO_TYPO is no variable of pando"}},
		{"users_file", nil, []string{"--auth-users-file", users}, nil},
		{"missing_users_file", nil, []string{"--auth-users-file", "/nonexistent/users"}, []string{"auth.usersFile: users file: open /nonexistent/users: no such file"}},
		{"malformed_users_file_beside_others", []string{"PANDO_AUTH_USERS_FILE=" + noUsers}, []string{"--config", many}, []string{many + " is not valid:", "drain.timeout: -1s is negative", "auth.usersFile: users file " + noUsers + ": line 1: want user:password"}},
		{"list_flag", nil, []string{"--tailnet-tags", "tag:a,b"}, []string{`tailnet.tags[1]: "b" is no tag`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, stderr, err := run(t, tc.env, append([]string{"check"}, tc.args...)...)
			if len(tc.want) == 0 {
				if err != nil || stdout != "the configuration is valid\n" || stderr != "" {
					t.Errorf("got %q, %q, %v", stdout, stderr, err)
				}
				return
			}
			if err == nil || stdout != "" {
				t.Fatalf("got %q, %v; want an error", stdout, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestVersion(t *testing.T) {
	stdout, _, err := run(t, nil, "version")
	if err != nil || !strings.HasPrefix(stdout, "pando "+Version+"\ntailscale.com ") || strings.Count(stdout, "\n") != 2 {
		t.Errorf("got %q, %v", stdout, err)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if stdout, _, err := run(t, nil, "completion", shell); err != nil || !strings.Contains(stdout, "pando") {
			t.Errorf("%s: %.80q, %v", shell, stdout, err)
		}
	}
	// What the scripts ask for.
	for words, want := range map[string]string{"e": "explain", "status --": "--json", "gateway --drain-": "--drain-timeout"} {
		if stdout, _, err := run(t, nil, append([]string{"__complete"}, strings.Split(words, " ")...)...); err != nil || !strings.Contains(stdout, want) {
			t.Errorf("%q is completed by %q, %v; want %s", words, stdout, err, want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"unknown_command", []string{"gatway"}, `unknown command "gatway" for "pando"`},
		{"unknown_flag", []string{"check", "--drain-timeoutt=1s"}, "unknown flag: --drain-timeoutt"},
		{"unknown_flag_demo", []string{"demo", "--lissten=x"}, "unknown flag: --lissten"},
		{"argument_check", []string{"check", "pando.yaml"}, `"pando.yaml"`},
		{"argument_gateway", []string{"gateway", "now"}, `"now"`},
		{"gateway_bad_config", []string{"gateway", "--drain-timeout=-1s"}, "drain.timeout: -1s is negative"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, stderr, err := run(t, nil, tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) || stdout+stderr != "" {
				t.Errorf("got %q, %q, %v; want only the error %q, which main prints", stdout, stderr, err, tc.want)
			}
		})
	}
}

func TestHelpListsEveryFlag(t *testing.T) {
	for _, command := range []string{"check", "gateway"} {
		stdout, _, err := run(t, nil, command, "--help")
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range config.Keys() {
			if has := strings.Contains(stdout, "--"+k.Flag()+" "); has != k.Scalar {
				t.Errorf("pando %s --help: --%s is there: %v, want %v", command, k.Flag(), has, k.Scalar)
			}
		}
	}
}

func TestDemoRefusals(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().String()
	for _, tc := range []struct{ name, listen, want string }{
		{"all_addresses", "0.0.0.0:1", "0.0.0.0 is not a loopback address"},
		{"no_host", ":1055", "is not a loopback address"},
		{"host_name", "example.com:1055", "example.com is not a loopback address"},
		{"no_port", "127.0.0.1", `"127.0.0.1" is no address; write one such as 127.0.0.1:1055`},
		{"taken", taken, taken + " is in use; stop what uses it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, _, err := run(t, nil, "demo", "--once", "--listen", tc.listen)
			if err == nil || !strings.Contains(err.Error(), tc.want) || stdout != "" {
				t.Errorf("got %q, %v; want %q before anything starts", stdout, err, tc.want)
			}
		})
	}
}
