package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
)

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}, {"version", "-o", "text"}} {
		stdout, _, err := run(t, nil, args...)
		if err != nil || !strings.HasPrefix(stdout, "pando "+Version+"\ntailscale.com ") || strings.Count(stdout, "\n") != 2 {
			t.Errorf("pando %v printed %q, %v; want two lines of versions", args, stdout, err)
		}
	}
	for _, args := range [][]string{{"version", "-o", "json"}, {"version", "--output=json"}, {"version", "--json"}} {
		stdout, _, err := run(t, nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		var v struct{ Pando, Tailscale string }
		if err := json.Unmarshal([]byte(stdout), &v); err != nil || v.Pando != Version || v.Tailscale == "" {
			t.Errorf("pando %v printed %s, %v; want the versions as JSON", args, stdout, err)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if stdout, _, err := run(t, nil, "completion", shell); err != nil || !strings.Contains(stdout, "pando") {
			t.Errorf("pando completion %s printed %.80q, %v; want a script", shell, stdout, err)
		}
	}
	// __complete is what the scripts call.
	for words, want := range map[string]string{
		"e":                 "explain",
		"help c":            "check",
		"status --":         "--json",
		"status -o ":        "json",
		"gateway --drain-":  "--drain-timeout",
		"completion power":  "powershell",
		"explain --timeou":  "--timeout",
		"version --output=": "json",
	} {
		if stdout, _, err := run(t, nil, append([]string{"__complete"}, strings.Split(words, " ")...)...); err != nil || !strings.Contains(stdout, want) {
			t.Errorf("__complete %q printed %q, %v; want %q in it", words, stdout, err, want)
		}
	}
}

// TestUsageErrors checks that a mistake on the command line is an error, which
// says what was meant and where help is.
func TestUsageErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"unknown_command", []string{"gatway"}, `unknown command "gatway" for "pando"; did you mean gateway?; see 'pando --help'`},
		{"one_letter", []string{"e"}, `unknown command "e" for "pando"; see 'pando --help'`},
		{"unlike_any_command", []string{"frobnicate"}, `unknown command "frobnicate" for "pando"; see 'pando --help'`},
		{"prefix_of_a_command", []string{"expl"}, "did you mean explain?"},
		{"help_of_unknown_command", []string{"help", "nosuch"}, `unknown command "nosuch" for "pando"; see 'pando --help'`},
		{"help_of_misspelled_command", []string{"help", "statuss"}, `unknown command "statuss" for "pando"; did you mean status?; see 'pando --help'`},
		{"help_of_unknown_subcommand", []string{"help", "completion", "powershel"}, "did you mean powershell?; see 'pando completion --help'"},
		{"unknown_shell", []string{"completion", "powershel"}, `unknown command "powershel" for "pando completion"; did you mean powershell?; see 'pando completion --help'`},
		{"unknown_flag", []string{"check", "--drain-timeoutt=1s"}, "unknown flag: --drain-timeoutt; did you mean --drain-timeout?; see 'pando check --help'"},
		{"unknown_flag_demo", []string{"demo", "--lissten=x"}, "unknown flag: --lissten; did you mean --listen?; see 'pando demo --help'"},
		{"unknown_flag_unlike_any", []string{"demo", "--frobnicate"}, "unknown flag: --frobnicate; see 'pando demo --help'"},
		{"unknown_short_flag", []string{"status", "-x"}, "unknown shorthand flag: 'x' in -x; see 'pando status --help'"},
		{"argument_gateway", []string{"gateway", "now"}, `pando gateway takes no argument, but got "now"; see 'pando gateway --help'`},
		{"argument_status", []string{"status", "now"}, `pando status takes no argument`},
		{"unknown_output", []string{"status", "-o", "yaml"}, `invalid --output "yaml": use text or json; see 'pando status --help'`},
		{"bad_timeout", []string{"status", "--timeout", "soon"}, `invalid --timeout "soon": write a duration above zero, with a unit, such as 5s; see 'pando status --help'`},
		{"timeout_without_unit", []string{"explain", "--timeout", "5"}, `invalid --timeout "5": write a duration above zero, with a unit, such as 5s; see 'pando explain --help'`},
		{"no_timeout", []string{"flows", "--timeout=0s"}, `invalid --timeout "0s": write a duration above zero`},
		{"bad_limit", []string{"flows", "--limit", "x"}, `invalid --limit "x": write a whole number, such as 100; see 'pando flows --help'`},
		{"negative_limit", []string{"flows", "--limit=-1"}, `invalid --limit "-1": write a whole number, such as 100; see 'pando flows --help'`},
		{"bad_admin", []string{"status", "--admin", "9002"}, `invalid --admin "9002": write host:port, such as 127.0.0.1:9002; see 'pando status --help'`},
		{"admin_url", []string{"flows", "--admin", "http://127.0.0.1:9002/"}, `invalid --admin "http://127.0.0.1:9002/": write host:port`},
		{"bad_bool", []string{"flows", "--json=ja"}, `invalid --json "ja": write true or false; see 'pando flows --help'`},
		{"bad_list", []string{"env", `--cidr="a`}, `invalid --cidr "\"a": write a list with commas, such as a,b; see 'pando env --help'`},
		{"bad_format", []string{"env", "--format", "xml"}, `invalid --format "xml": use shell, dotenv or kubernetes; see 'pando env --help'`},
		{"bad_proxy", []string{"env", "--proxy", "pando:1055"}, `(the proxy port itself does not use TLS); see 'pando env --help'`},
		{"bad_cidr", []string{"env", "--cidr", "10.96.0.1/12"}, `invalid --cidr "10.96.0.1/12": write a prefix such as 10.96.0.0/12; see 'pando env --help'`},
		{"bad_demo_listen", []string{"demo", "--listen", "0.0.0.0:1"}, "so use 127.0.0.1; see 'pando demo --help'"},
		{"no_value", []string{"flows", "--limit"}, "flag needs an argument: --limit; see 'pando flows --help'"},
		{"file_twice", []string{"check", "--config", "a", "b"}, "give it as an argument or with --config; see 'pando check --help'"},
		{"two_files", []string{"check", "a", "b"}, "pando check takes one file, but got 2; see 'pando check --help'"},
		{"empty_target", []string{"explain", ""}, "the target is empty; leave it out to check the replica itself; see 'pando explain --help'"},
		{"argument_of_a_shell", []string{"completion", "bash", "x"}, `pando completion bash takes no argument, but got "x"; see 'pando completion bash --help'`},
		{"unknown_command_help", []string{"nosuch", "--help"}, `unknown command "nosuch" for "pando"; see 'pando --help'`},
		{"help_unknown_command", []string{"--help", "nosuch"}, `unknown command "nosuch" for "pando"; see 'pando --help'`},
		{"unknown_shell_help", []string{"completion", "-h", "x"}, `unknown command "x" for "pando completion"; see 'pando completion --help'`},
		{"argument_help", []string{"status", "now", "--help"}, `pando status takes no argument, but got "now"; see 'pando status --help'`},
		{"help_of_help_of_unknown", []string{"help", "nosuch", "-h"}, `unknown command "nosuch" for "pando"; see 'pando --help'`},
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

// TestHelp checks that help is not an error, wherever the flag is.
func TestHelp(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "pando [command]"},
		{[]string{"--help"}, "pando [command]"},
		{[]string{"help"}, "pando [command]"},
		{[]string{"status", "-h"}, "pando status [flags]"},
		{[]string{"--help", "status"}, "pando status [flags]"},
		{[]string{"-h", "check"}, "pando check [FILE] [flags]"},
		{[]string{"check", "--help", "file"}, "pando check [FILE] [flags]"},
		{[]string{"help", "completion", "bash"}, "pando completion bash"},
		{[]string{"completion", "--help"}, "pando completion [command]"},
	} {
		stdout, stderr, err := run(t, nil, tc.args...)
		if err != nil || stderr != "" || !strings.Contains(stdout, tc.want) {
			t.Errorf("pando %v printed %q, %q, %v; want the help with %q", tc.args, stdout, stderr, err, tc.want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"check", "completion", "coredns", "demo", "env", "explain", "flows", "gateway", "status", "version"}
	for _, tc := range []struct {
		word string
		want []string
	}{
		{"check", []string{"check"}},
		{"chekc", []string{"check"}},
		{"FLOW", []string{"flows"}},
		{"stat", []string{"status"}},
		{"co", []string{"completion", "coredns"}},
		{"frobnicate", nil},
		{"", []string{}},
	} {
		if got := nearest(tc.word, names); !slices.Equal(got, tc.want) {
			t.Errorf("nearest(%q) = %q, want %q", tc.word, got, tc.want)
		}
	}
}

// TestHelpListsEveryFlag checks that the help of each command that reads the
// configuration has a flag for each key that a flag can set, in its section.
func TestHelpListsEveryFlag(t *testing.T) {
	for _, command := range []string{"check", "gateway", "coredns"} {
		for _, args := range [][]string{{command, "--help"}, {"help", command}} {
			stdout, _, err := run(t, nil, args...)
			if err != nil {
				t.Fatal(err)
			}
			sections := map[string]string{}
			for _, part := range strings.Split(stdout, "\nSection ")[1:] {
				name, flags, _ := strings.Cut(part, ". ")
				sections[name] = flags
			}
			for _, k := range config.Keys() {
				if got := strings.Contains(sections[k.Section()], "--"+k.Flag()+" "); got != k.Scalar {
					t.Errorf("pando %v: --%s in the section %s: %v, want %v", args, k.Flag(), k.Section(), got, k.Scalar)
				}
			}
		}
	}
}

// TestHelpShowsTypes checks that the help says of what type a value is.
func TestHelpShowsTypes(t *testing.T) {
	stdout, _, err := run(t, nil, "gateway", "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"--config file ",
		"--drain-timeout duration ",
		"--limits-connections int ",
		"--tailnet-tags list ",
		"--tailnet-hostname string ",
		"--listen-pprof ", // a bool needs no value
	} {
		if !regexp.MustCompile(`(?m)^ +(-., )?` + want + ` *\S`).MatchString(stdout) {
			t.Errorf("pando gateway --help does not contain %q:\n%s", want, stdout)
		}
	}
	for _, line := range strings.Split(stdout, "\n") {
		if len([]rune(line)) > helpWidth {
			t.Errorf("pando gateway --help has a line of %d characters, want at most %d: %s", len([]rune(line)), helpWidth, line)
		}
	}
}

// TestHelpNamesChoices checks that the help of a key with a few values names them all.
func TestHelpNamesChoices(t *testing.T) {
	n := 0
	for _, k := range config.Keys() {
		if !k.Scalar || k.Type != "string" {
			continue
		}
		_, _, err := run(t, nil, "check", "--"+k.Flag()+"=nosuch")
		_, choices, found := strings.Cut(fmt.Sprint(err), `invalid value "nosuch": use `)
		if !found {
			continue
		}
		n++
		for _, choice := range strings.Split(strings.ReplaceAll(choices, " or ", ", "), ", ") {
			if !regexp.MustCompile(`\b` + choice + `\b`).MatchString(k.Doc) {
				t.Errorf("the help of --%s does not name %s: %s", k.Flag(), choice, k.Doc)
			}
		}
	}
	if n < 5 {
		t.Errorf("found %d keys with a few values, want 5 or more: the test looks for the wrong thing", n)
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
		{"no_port", "127.0.0.1", `invalid --listen "127.0.0.1": write host:port, such as 127.0.0.1:1055`},
		{"taken", taken, taken + " is in use; stop the program that uses it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, _, err := run(t, nil, "demo", "--once", "--listen", tc.listen)
			if err == nil || !strings.Contains(err.Error(), tc.want) || stdout != "" {
				t.Errorf("got %q, %v; want %q before anything starts", stdout, err, tc.want)
			}
		})
	}
}
