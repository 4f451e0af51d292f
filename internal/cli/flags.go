package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pandoproxy/pando/internal/config"
)

// settings are the flags of a command that reads the configuration.
type settings struct {
	env   Env
	flags *pflag.FlagSet
	path  string // --config
}

// addConfigFlags adds --config and a flag for each key to cmd, and has the help
// of cmd group them by section. The settings are valid once cmd runs.
func addConfigFlags(cmd *cobra.Command, env Env) *settings {
	s := &settings{env: env, flags: cmd.Flags()}
	s.flags.StringVar(&s.path, "config", "", "configuration `file`, in YAML (or PANDO_CONFIG)")
	for _, k := range config.Keys() {
		if !k.Scalar {
			continue
		}
		f := s.flags.VarPF(&keyValue{text: k.Default, kind: flagType(k)}, k.Flag(), "", k.Doc)
		if k.Type == "bool" {
			f.NoOptDefVal = "true"
		}
		if k.Default == "0s" {
			f.DefValue = "" // help shows no default, as for other zero values
		}
	}
	cmd.SetUsageFunc(func(cmd *cobra.Command) error { return printUsage(cmd.OutOrStderr(), cmd) })
	return s
}

// file returns the file of the configuration; empty means none.
func (s *settings) file() string {
	if s.path != "" {
		return s.path
	}
	return lookup(s.env.Environ, "PANDO_CONFIG")
}

// load loads the configuration. Its error lists every mistake.
func (s *settings) load() (config.Config, error) {
	values := map[string]string{}
	s.flags.Visit(func(f *pflag.Flag) { values[f.Name] = f.Value.String() })
	cfg, err := config.Load(s.file(), s.env.Environ, values)
	return cfg, configError(err)
}

// configError adds to the mistakes of a configuration whose they are. It returns nil
// for nil.
func configError(err error) error {
	if _, ok := err.(config.Unreadable); ok || err == nil {
		return err // nothing is known of its mistakes
	}
	return fmt.Errorf("invalid configuration:\n%w", err)
}

// sources names what load reads, in words.
func (s *settings) sources() []string {
	list := []string{"defaults", "no file (give one: pando check FILE)"}
	if file := s.file(); file != "" {
		list[1] = "file " + file
	}
	var variables, flags []string
	for _, k := range config.Keys() {
		if !k.Scalar {
			continue
		}
		if lookup(s.env.Environ, k.Env()) != "" {
			variables = append(variables, k.Env())
		}
		if s.flags.Changed(k.Flag()) {
			flags = append(flags, "--"+k.Flag())
		}
	}
	if len(variables) == 0 {
		variables = []string{"none"}
	}
	list = append(list, "PANDO_* variables: "+strings.Join(variables, ", "))
	if len(flags) > 0 {
		list = append(list, "flags: "+strings.Join(flags, ", "))
	}
	return list
}

// keyValue is the value of a flag that sets a key. Package config parses it.
type keyValue struct {
	text string
	kind string
}

func (v *keyValue) Set(text string) error { v.text = text; return nil }
func (v *keyValue) String() string        { return v.text }

// Type returns what help shows as the flag's value.
func (v *keyValue) Type() string { return v.kind }

// flagType returns what help shows as the value of a key's flag.
func flagType(k config.Key) string {
	if k.Type == "number" {
		return "int"
	}
	return k.Type
}

// helpWidth is the width of the help of flags, in characters.
const helpWidth = 100

// printUsage prints the usage of a command with the flags of the configuration,
// by section.
func printUsage(w io.Writer, cmd *cobra.Command) error {
	section := map[string]string{} // of a flag
	var order []string
	for _, k := range config.Keys() {
		if !k.Scalar {
			continue
		}
		name := k.Section()
		section[k.Flag()] = name
		if len(order) == 0 || order[len(order)-1] != name {
			order = append(order, name)
		}
	}
	groups := map[string]*pflag.FlagSet{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := section[f.Name]
		if groups[name] == nil {
			groups[name] = pflag.NewFlagSet(name, pflag.ContinueOnError)
			groups[name].SortFlags = false
		}
		groups[name].AddFlag(f)
	})
	fmt.Fprintf(w, "Usage:\n  %s\n\nFlags:\n%s", cmd.UseLine(), groups[""].FlagUsagesWrapped(helpWidth))
	for _, name := range order {
		fmt.Fprintf(w, "\nSection %s. %s\n%s", name, config.SectionDoc(name), groups[name].FlagUsagesWrapped(helpWidth))
	}
	_, err := fmt.Fprintln(w, "\nThe sections are those of the configuration file. docs/configuration.md describes all keys.")
	return err
}
