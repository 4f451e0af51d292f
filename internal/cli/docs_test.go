package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestDocsCommands checks that the command line takes every pando command of the
// documentation: the flags, their values and the number of arguments.
func TestDocsCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pando.yaml")
	if err := os.WriteFile(file, []byte("listen: {dns: \":1053\"}\ndns: {zones: [{suffix: internal.example.com}], fleet: [10.96.0.77]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	commands := docsCommands(t)
	for _, args := range commands {
		if err := accepts(t, file, args); err != nil {
			t.Errorf("pando %s: %v", strings.Join(args, " "), err)
		}
	}
	if len(commands) < 20 {
		t.Errorf("found only %d commands: the test looks for the wrong thing", len(commands))
	}
	for _, wrong := range []string{
		"statsu", "status --nosuch", "status all", "flows -o xml", "explain a:1 b:2", "env --format yaml", "env --cidr 10.0.0.0/33",
		"coredns --config FILE --address none", "gateway --tailnet-mode both", "check FILE FILE", "check --config nosuch.yaml",
	} {
		if accepts(t, file, strings.Fields(wrong)) == nil {
			t.Errorf("pando %s is accepted: this test does not see such a mistake", wrong)
		}
	}
}

// docsCommands returns the arguments of every pando command in the documentation.
func docsCommands(t *testing.T) [][]string {
	t.Helper()
	name := regexp.MustCompile("`pando ([a-z]+)`")
	var list [][]string
	for _, p := range testkit.Pages(t, "../..") {
		for _, c := range p.Commands() {
			args := c.Args()
			if i := slices.Index(args, "/pando"); i > 0 { // kubectl exec POD -- /pando …
				list = append(list, args[i+1:])
			}
			if args[0] == "pando" || args[0] == "./bin/pando" {
				list = append(list, args[1:])
			}
		}
		for _, m := range name.FindAllStringSubmatch(p.Text, -1) {
			list = append(list, m[1:])
		}
	}
	return list
}

// accepts reports what is wrong with the arguments of a command. file is a
// configuration, which takes the place of the documentation's. A command that only
// computes runs; pando gateway runs as pando check, which takes the same flags;
// of the others only the flags and the number of arguments are checked.
func accepts(t *testing.T, file string, args []string) error {
	t.Helper()
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "FILE" || filepath.Base(arg) == "pando.yaml" {
			args[i] = file
		}
	}
	root := newRoot(t.Context(), Env{})
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if cmd == root && len(rest) > 0 {
		return noSuchCommand(cmd, rest)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return err
	}
	switch cmd.Name() {
	case "gateway":
		args[0] = "check"
	case "env":
		if cmd.Flags().Changed("from-cluster") { // it runs kubectl
			return nil
		}
	case "coredns":
		if len(args) == 1 { // a sentence names the command
			return nil
		}
	case "check", "version":
	default:
		return nil
	}
	_, _, err = run(t, nil, args...)
	return err
}
