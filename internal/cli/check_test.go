package cli

import (
	"strings"
	"testing"
)

// TestCheck checks which configurations are valid, and that the error of the
// others says all that is wrong.
func TestCheck(t *testing.T) {
	good := configFile(t, "listen: {proxy: ':3128'}\n")
	negative := configFile(t, "drain: {timeout: -1s}\n")
	many := configFile(t, "lisen: {}\ndrain: {timeout: -1s}\nlog: {level: loud}\n")
	empty := configFile(t, "")
	const missing = "^cannot read /nonexistent/pando.yaml: no such file or directory"
	users := configFile(t, "ann:secret\n")
	noUsers := configFile(t, "ann\n")
	for _, tc := range []struct {
		name string
		env  []string
		args []string
		want []string // words of the error, ^ is its beginning; none means that it is valid
	}{
		{"nothing", nil, nil, nil},
		{"good", nil, []string{"--config", good}, nil},
		{"good_by_argument", nil, []string{good}, nil},
		{"good_by_variable", []string{"PANDO_CONFIG=" + good}, nil, nil},
		{"all_mistakes", nil, []string{"--config", many}, []string{"invalid configuration:", many + ":1:1: lisen: unknown key", "drain.timeout: -1s is negative", `log.level: invalid value "loud"`}},
		{"all_mistakes_by_argument", nil, []string{many}, []string{"invalid configuration:", many + ":1:1: lisen: unknown key", many + ":2:9: drain.timeout: -1s is negative"}},
		{"bad_by_variable", []string{"PANDO_CONFIG=" + negative}, nil, []string{"invalid configuration:", "drain.timeout: -1s is negative"}},
		{"flag_over_variable_path", []string{"PANDO_CONFIG=" + negative}, []string{"--config", good}, nil},
		{"argument_over_variable_path", []string{"PANDO_CONFIG=" + negative}, []string{good}, nil},
		{"argument_and_flag", nil, []string{"--config", good, good}, []string{"the file is given twice"}},
		{"empty_argument", nil, []string{""}, []string{"the file's name is empty"}},
		{"two_arguments", nil, []string{good, good}, []string{"pando check takes one file, but got 2"}},
		{"missing_file", nil, []string{"--config", "/nonexistent/pando.yaml"}, []string{missing}},
		{"missing_file_by_argument", nil, []string{"/nonexistent/pando.yaml"}, []string{missing}},
		{"empty_file", nil, []string{empty}, []string{"invalid configuration:", empty + ": the file is empty"}},
		{"flag_over_file", nil, []string{"--config", negative, "--drain-timeout", "1s"}, nil},
		{"flag_over_env", []string{"PANDO_LOG_LEVEL=loud"}, []string{"--log-level=warn"}, nil},
		{"env_over_file", []string{"PANDO_DRAIN_TIMEOUT=1s"}, []string{"--config", negative}, nil},
		{"bad_flag", nil, []string{"--drain-timeout", "soon"}, []string{"invalid configuration:", `--drain-timeout: drain.timeout: invalid duration "soon"`}},
		{"bad_bool_flag", nil, []string{"--tailnet-ephemeral=ja"}, []string{`--tailnet-ephemeral: tailnet.ephemeral: invalid value "ja"`}},
		{"bool_flag_alone", nil, []string{"--tailnet-ephemeral", "--listen-reuse-port"}, nil},
		{"bad_env", []string{"PANDO_TYPO=1"}, nil, []string{"PANDO_TYPO: unknown variable"}},
		{"users_file", nil, []string{"--auth-users-file", users}, nil},
		{"missing_users_file", nil, []string{"--auth-users-file", "/nonexistent/users"}, []string{"invalid configuration:", "--auth-users-file: auth.usersFile: cannot read /nonexistent/users: no such file"}},
		{"malformed_users_file_beside_others", []string{"PANDO_AUTH_USERS_FILE=" + noUsers}, []string{"--config", many}, []string{"invalid configuration:", "drain.timeout: -1s is negative", "PANDO_AUTH_USERS_FILE: auth.usersFile: " + noUsers + ": line 1: write user:password"}},
		{"list_flag", nil, []string{"--tailnet-tags", "tag:a,b"}, []string{`tailnet.tags[1]: invalid tag "b"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, stderr, err := run(t, tc.env, append([]string{"check"}, tc.args...)...)
			if len(tc.want) == 0 {
				if err != nil || !strings.HasPrefix(stdout, "the configuration is valid\nchecked: ") || stderr != "" {
					t.Errorf("got %q, %q, %v; want a valid configuration", stdout, stderr, err)
				}
				return
			}
			if err == nil || stdout != "" {
				t.Fatalf("got %q, %v; want an error", stdout, err)
			}
			for _, want := range tc.want {
				if !strings.Contains("^"+err.Error(), want) { // ^ is the beginning
					t.Errorf("error = %v, want %q in it", err, want)
				}
			}
		})
	}
}

// TestCheckNamesItsSources checks that pando check says what it has checked.
func TestCheckNamesItsSources(t *testing.T) {
	file := configFile(t, "{}\n")
	for _, tc := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"nothing", nil, nil, "defaults; no file (give one: pando check FILE); PANDO_* variables: none"},
		{"file", nil, []string{file}, "defaults; file " + file + "; PANDO_* variables: none"},
		{"file_by_variable", []string{"PANDO_CONFIG=" + file}, nil, "defaults; file " + file + "; PANDO_* variables: none"},
		{"variables", []string{"PANDO_LOG_LEVEL=warn", "HOME=/root", "PANDO_DIAL_TIMEOUT=3s"}, nil, "defaults; no file (give one: pando check FILE); PANDO_* variables: PANDO_DIAL_TIMEOUT, PANDO_LOG_LEVEL"},
		{"variable_of_a_kubernetes_service", []string{"PANDO_PORT=tcp://10.96.0.7:1055"}, nil, "defaults; no file (give one: pando check FILE); PANDO_* variables: none"},
		{"flags", nil, []string{"--log-level=warn", file}, "defaults; file " + file + "; PANDO_* variables: none; flags: --log-level"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, _, err := run(t, tc.env, append([]string{"check"}, tc.args...)...)
			if want := "the configuration is valid\nchecked: " + tc.want + "\n"; err != nil || stdout != want {
				t.Errorf("got %q, %v; want %q", stdout, err, want)
			}
		})
	}
}
