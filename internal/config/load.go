package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/pandoproxy/pando/internal/config/strictyaml"
	"github.com/pandoproxy/pando/internal/config/value"
)

// Load returns the configuration that the defaults, the file, the environment and
// the flags make, in this order: the later ones win. An empty file name means no
// file; environ has the form of os.Environ; flags has values by the names of
// Key.Flag. The error joins all mistakes, including those of Validate, in an order
// that does not change. With an error, the configuration must not be run, unless
// OnlySecretFiles(err). It is an Unreadable if the file cannot be read.
func Load(file string, environ []string, flags map[string]string) (Config, error) {
	return LoadOver(Default(), file, environ, flags)
}

// LoadOver is Load with c in place of the defaults.
func LoadOver(c Config, file string, environ []string, flags map[string]string) (Config, error) {
	r := &strictyaml.Report{}
	usable := true
	if file != "" {
		data, err := readFile(file)
		if err != nil {
			return c, Unreadable{err}
		}
		usable = strictyaml.Decode(file, data, &c, options, r)
	}
	applyEnv(&c, environ, r)
	applyFlags(&c, flags, r)
	if usable { // otherwise Validate would judge a configuration without its file
		validate(&c, r)
	}
	return c, r.Err()
}

// Unreadable is the error of Load for a configuration file that cannot be read.
type Unreadable struct{ error }

func (e Unreadable) Unwrap() error { return e.error }

// readFile returns the content of a file. Its error is such as "cannot read FILE: no
// such file or directory".
func readFile(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, cmp.Or(errors.Unwrap(err), err))
	}
	return data, nil
}

// Parse decodes a YAML document onto c. Keys that do not exist, keys that occur
// twice, second documents and values of the wrong kind are errors; all of them are
// reported. Parse does not validate.
func Parse(data []byte, c *Config) error {
	r := &strictyaml.Report{}
	strictyaml.Decode("", data, c, options, r)
	return r.Err()
}

var options = strictyaml.Options{
	Text: value.TextTypes,
	// An empty file is probably still being written, or a template rendered nothing.
	// It would take away all rules of the policy.
	Empty:   "the file is empty, which is probably a mistake; write {} for a configuration without settings",
	Null:    null,
	Foreign: "not a configuration of Pando; write keys such as listen and tailnet, each with a colon",
	Unknown: "docs/configuration.md lists all keys",
}

// null handles a key with nothing behind its colon: it keeps the default. Rules are
// different, because a template may have rendered nothing there. A list of a rule
// becomes empty, which Validate rejects: if it were left out, the rule would match
// everything. No rules at all would allow everything.
func null(path string, v reflect.Value, r *strictyaml.Report) {
	switch {
	case path == "policy.rules":
		r.Add(path, "nothing follows the colon; write [] for no rules")
	case strings.HasPrefix(path, "policy.rules[") && v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	}
}
