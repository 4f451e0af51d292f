package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Key is one key of the configuration.
type Key struct {
	Path string // "tailnet.authKeyFile"; a list's elements are "policy.rules[].from"
	Type string // "string", "bool", "number", "duration", "list", "map"
	Doc  string
	// Default is the default value as the file would spell it; empty means
	// empty.
	Default string
	// Scalar says that the key can be set by a variable and a flag too.
	Scalar bool
	// Live says that a running gateway takes over a change.
	Live bool

	index []int
}

// Env returns the variable that sets the key: PANDO_TAILNET_AUTH_KEY_FILE.
func (k Key) Env() string {
	return "PANDO_" + strings.ToUpper(strings.ReplaceAll(k.Flag(), "-", "_"))
}

// Flag returns the flag that sets the key, without dashes: tailnet-auth-key-file.
func (k Key) Flag() string {
	var b strings.Builder
	runes := []rune(k.Path)
	for i, r := range runes {
		switch {
		case r == '.':
			b.WriteByte('-')
		case unicode.IsUpper(r):
			// A hump starts at a capital behind a small letter, and at the
			// last capital of a run: authKey, controlURL, minTTL.
			if unicode.IsLower(runes[i-1]) {
				b.WriteByte('-')
			}
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Keys lists every key, in the order of the file.
func Keys() []Key {
	var keys []Key
	def := Default()
	walk(reflect.ValueOf(def), "", nil, true, false, &keys)
	return keys
}

// Changes lists the keys that differ between two configurations: those that a
// running gateway takes over, and those that want a restart.
func Changes(old, changed *Config) (live, restart []string) {
	for _, k := range Keys() {
		if k.index == nil {
			continue // of an element: its list is compared
		}
		a, b := reflect.ValueOf(old).Elem().FieldByIndex(k.index), reflect.ValueOf(changed).Elem().FieldByIndex(k.index)
		switch {
		case reflect.DeepEqual(a.Interface(), b.Interface()):
		case k.Live:
			live = append(live, k.Path)
		default:
			restart = append(restart, k.Path)
		}
	}
	return live, restart
}

func walk(v reflect.Value, prefix string, index []int, settable, live bool, keys *[]Key) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		path := prefix + name
		at := append(slices.Clone(index), i)
		k := Key{Path: path, Doc: f.Tag.Get("doc"), index: at, Scalar: settable, Live: live || f.Tag.Get("live") != ""}
		if !settable {
			k.index = nil
		}
		fv := v.Field(i)
		switch fv.Interface().(type) {
		case Duration:
			k.Type, k.Default = "duration", fv.Interface().(Duration).String()
		case string, Secret:
			k.Type, k.Default = "string", fv.String()
		case bool:
			k.Type, k.Default = "bool", strconv.FormatBool(fv.Bool())
		case int:
			k.Type, k.Default = "number", strconv.FormatInt(fv.Int(), 10)
		case []string:
			k.Type = "list"
		case map[string][]string:
			k.Type, k.Scalar = "map", false
		default:
			if fv.Kind() == reflect.Slice { // of sections
				k.Type, k.Scalar = "list", false
				*keys = append(*keys, k)
				walk(reflect.Zero(fv.Type().Elem()), path+"[].", nil, false, k.Live, keys)
				continue
			}
			walk(fv, path+".", at, settable, k.Live, keys)
			continue
		}
		*keys = append(*keys, k)
	}
}

// set gives the key its value from a string; a list is separated by commas.
func (k Key) set(c *Config, value string) error {
	f := reflect.ValueOf(c).Elem().FieldByIndex(k.index)
	switch k.Type {
	case "duration":
		d, err := parseDuration(value)
		if err != nil {
			return err
		}
		f.SetInt(int64(d))
	case "string":
		f.SetString(value)
	case "bool":
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		f.SetBool(b)
	case "number":
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("%q is no whole number", value)
		}
		f.SetInt(int64(n))
	case "list":
		list := []string{}
		for s := range strings.SplitSeq(value, ",") {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
		f.Set(reflect.ValueOf(list))
	}
	return nil
}

// notKeys are the PANDO_ variables that are no keys of the configuration.
var notKeys = []string{"PANDO_CONFIG"}

// applyEnv sets the keys that environ, of the form of os.Environ, gives. An
// unknown PANDO_ variable is a mistake; those that Kubernetes makes of a
// Service called pando are not.
func applyEnv(c *Config, environ []string) error {
	byEnv := map[string]Key{}
	for _, k := range Keys() {
		if k.Scalar {
			byEnv[k.Env()] = k
		}
	}
	var errs []error
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "PANDO_") || slices.Contains(notKeys, name) || strings.Contains(value, "://") && serviceVariable(name) {
			continue
		}
		k, ok := byEnv[name]
		if !ok {
			if !serviceVariable(name) {
				errs = append(errs, fmt.Errorf("environment: %s is no variable of pando; docs/configuration.md lists them all", name))
			}
			continue
		}
		if err := k.set(c, value); err != nil {
			errs = append(errs, fmt.Errorf("environment: %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// serviceVariable reports whether Kubernetes made the variable: it gives each
// pod PANDO_SERVICE_HOST, PANDO_PORT_1055_TCP and the like for a Service whose
// name begins with pando.
func serviceVariable(name string) bool {
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") ||
		strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_") && (strings.Contains(name, "_TCP") || strings.Contains(name, "_UDP"))
}

// applyFlags sets the keys that flags gives, by the names of Key.Flag.
func applyFlags(c *Config, flags map[string]string) error {
	var errs []error
	for _, k := range Keys() {
		if value, ok := flags[k.Flag()]; ok && k.Scalar {
			if err := k.set(c, value); err != nil {
				errs = append(errs, fmt.Errorf("--%s: %w", k.Flag(), err))
			}
		}
	}
	return errors.Join(errs...)
}
