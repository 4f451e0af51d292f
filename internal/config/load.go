package config

import (
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
// OnlySecretFiles(err).
func Load(file string, environ []string, flags map[string]string) (Config, error) {
	return LoadOver(Default(), file, environ, flags)
}

// LoadOver is Load with c in place of the defaults.
func LoadOver(c Config, file string, environ []string, flags map[string]string) (Config, error) {
	r := &strictyaml.Report{}
	usable := true
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return c, fmt.Errorf("config file: %w", err)
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

// Parse decodes a YAML document onto c. Keys that do not exist, keys that occur
// twice, second documents and values of the wrong kind are errors; all of them are
// reported. Parse does not validate.
func Parse(data []byte, c *Config) error {
	r := &strictyaml.Report{}
	strictyaml.Decode("", data, c, options, r)
	return r.Err()
}

var options = strictyaml.Options{
	Text:    value.TextTypes,
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
