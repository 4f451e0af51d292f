package cli

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// flagValue is the value of a flag that is checked when the flag is read.
type flagValue[T any] struct {
	value *T
	kind  string                  // what help shows as the value
	parse func(string) (T, error) // the error says what to write
}

// Set reads the value.
func (v *flagValue[T]) Set(text string) error {
	value, err := v.parse(text)
	if err != nil {
		return err
	}
	*v.value = value
	return nil
}

func (v *flagValue[T]) String() string { return fmt.Sprint(*v.value) }

// Type returns what help shows as the flag's value.
func (v *flagValue[T]) Type() string { return v.kind }

// addChoice adds a flag to cmd that takes one of the choices. The first one is the
// default. short is the flag in one letter; empty means none.
func addChoice(cmd *cobra.Command, value *string, name, short, usage string, choices ...string) {
	*value = choices[0]
	last := len(choices) - 1
	words := strings.Join(choices[:last], ", ") + " or " + choices[last]
	parse := func(text string) (string, error) {
		if !slices.Contains(choices, text) {
			return "", errors.New("use " + words)
		}
		return text, nil
	}
	cmd.Flags().VarP(&flagValue[string]{value, "string", parse}, name, short, usage+": "+words)
	complete := cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
		panic(err) // the flag does not exist
	}
}

// parseTimeout reads a duration above zero.
func parseTimeout(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, errors.New("write a duration above zero, with a unit, such as 5s")
	}
	return d, nil
}

// parseCount reads a number of things, 0 or more.
func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, errors.New("write a whole number, such as 100")
	}
	return n, nil
}

// parseHostPort reads the address of a port.
func parseHostPort(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n == 0 || strings.ContainsAny(host, "/ ") {
		return "", errors.New("write host:port, such as 127.0.0.1:9002")
	}
	return text, nil
}
