package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// output is the flags that choose the form of a command's output.
type output struct {
	format outputFormat
	asJSON bool // --json, the older spelling of -o json
}

// addFlags adds -o and --json to cmd.
func (o *output) addFlags(cmd *cobra.Command) {
	o.format = "text"
	cmd.Flags().VarP(&o.format, "output", "o", "form of the output: text or json")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "same as --output json")
	complete := cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc("output", complete); err != nil {
		panic(err) // the flag does not exist
	}
}

// json reports whether the output is to be JSON.
func (o *output) json() bool { return o.asJSON || o.format == "json" }

// outputFormat is the value of --output.
type outputFormat string

// Set takes one of the formats.
func (f *outputFormat) Set(text string) error {
	if text != "text" && text != "json" {
		return fmt.Errorf("use text or json")
	}
	*f = outputFormat(text)
	return nil
}

func (f *outputFormat) String() string { return string(*f) }

// Type returns what help shows as the flag's value.
func (f *outputFormat) Type() string { return "format" }
