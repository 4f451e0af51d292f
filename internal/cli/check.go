package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func checkCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration and report every mistake in it",
		Long: "Check a configuration and report every mistake in it: the defaults, FILE (or --config,\n" +
			"or PANDO_CONFIG), PANDO_* variables and flags. Later ones win.",
		Args: atMostOne("file"),
	}
	settings := addConfigFlags(cmd, env)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if cmd.Flags().Changed("config") {
				return usageError(cmd, "the file is given twice: give it as an argument or with --config")
			}
			if args[0] == "" {
				return usageError(cmd, "the file's name is empty")
			}
			settings.path = args[0]
		}
		if _, err := settings.load(); err != nil {
			return err
		}
		fmt.Fprintf(env.Stdout, "the configuration is valid\nchecked: %s\n", strings.Join(settings.sources(), "; "))
		return nil
	}
	return cmd
}
