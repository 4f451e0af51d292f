package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pandoproxy/pando/internal/config/strictyaml"
)

// helpCommand is "pando help [command]". Unlike cobra's own, it fails for a
// command that does not exist.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Show the help of a command",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			of, _, err := cmd.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return commandNames(of), cobra.ShellCompDirectiveNoFileComp
		},
		Args: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			return noSuchCommand(of, rest)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of, _, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			of.InitDefaultHelpFlag()
			of.InitDefaultVersionFlag()
			return of.Help()
		},
	}
}

// usageError is the error of a command line that is not right, with the command
// whose help says what would be.
func usageError(cmd *cobra.Command, format string, args ...any) error {
	return fmt.Errorf("%w; see '%s --help'", fmt.Errorf(format, args...), cmd.CommandPath())
}

// noSuchCommand validates the arguments of a command that only has subcommands:
// any argument is the name of one that does not exist.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError(cmd, "unknown command %q for %q%s",
		args[0], cmd.CommandPath(), didYouMean(nearest(args[0], commandNames(cmd)), ""))
}

// noArgs validates the arguments of a command that takes none.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError(cmd, "%s takes no argument, but got %q", cmd.CommandPath(), args[0])
}

// atMostOne validates the arguments of a command that takes one or none. what
// names the argument.
func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= 1 {
			return nil
		}
		return usageError(cmd, "%s takes one %s, but got %d", cmd.CommandPath(), what, len(args))
	}
}

// flagError returns the error for a mistake in a flag: which flag was meant, or what
// its value should be.
func flagError(cmd *cobra.Command, err error) error {
	if missing, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		return usageError(cmd, "%w%s", err, didYouMean(nearest(missing.GetSpecifiedName(), names), "--"))
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		remedy := invalid.Unwrap().Error() // of flagValue
		switch invalid.GetFlag().Value.Type() {
		case "bool":
			remedy = "write true or false"
		case "stringSlice":
			remedy = "write a list with commas, such as a,b"
		}
		return usageError(cmd, "invalid --%s %q: %s", invalid.GetFlag().Name, invalid.GetValue(), remedy)
	}
	return usageError(cmd, "%w", err)
}

// commandNames lists the subcommands of cmd that help shows.
func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// didYouMean suggests names, each with prefix before it.
func didYouMean(names []string, prefix string) string {
	if len(names) == 0 {
		return ""
	}
	return "; did you mean " + prefix + strings.Join(names, " or "+prefix) + "?"
}

// nearest returns the names that differ least from word, at most three, the
// nearest first. It returns none if all differ in more than a few letters.
func nearest(word string, names []string) []string {
	const suggestions = 3
	limit := max(1, min(2, len(word)/2), len(word)/4) // letters to change
	distances := map[string]int{}
	for _, name := range names {
		distance := strictyaml.Distance(strings.ToLower(word), name)
		if strings.HasPrefix(name, strings.ToLower(word)) && len(word) > 1 {
			distance = min(distance, limit)
		}
		if distance <= limit {
			distances[name] = distance
		}
	}
	near := slices.SortedFunc(maps.Keys(distances), func(a, b string) int {
		return cmp.Or(cmp.Compare(distances[a], distances[b]), cmp.Compare(a, b))
	})
	return near[:min(len(near), suggestions)]
}
