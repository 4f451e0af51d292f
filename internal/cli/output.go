package cli

import "github.com/spf13/cobra"

// output is the flags that choose the form of a command's output.
type output struct {
	format string // text or json
	asJSON bool   // --json, the older spelling of -o json
}

// addFlags adds -o and --json to cmd.
func (o *output) addFlags(cmd *cobra.Command) {
	addChoice(cmd, &o.format, "output", "o", "form of the output", "text", "json")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "same as --output json")
}

// json reports whether the output is to be JSON.
func (o *output) json() bool { return o.asJSON || o.format == "json" }
