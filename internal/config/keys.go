package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/pandoproxy/pando/internal/config/doc"
	"github.com/pandoproxy/pando/internal/config/strictyaml"
	"github.com/pandoproxy/pando/internal/config/value"
)

// Key is one key of the configuration.
type Key struct {
	Path string // "tailnet.authKeyFile"; a key of a list's elements is "policy.rules[].from"
	Type string // "string", "bool", "number", "duration", "list" or "map"
	Doc  string // plain text, in sentences
	// Default is the default value as the file would spell it; empty means that
	// the default is empty.
	Default string
	// Scalar means that a variable and a flag can set the key.
	Scalar bool
	// Live means that a running replica applies a change.
	Live bool

	index []int // of the field in Config; nil for keys of a list's elements
}

// Section returns the first part of the path: the section of the file.
func (k Key) Section() string { return k.Path[:strings.IndexAny(k.Path+".", ".[")] }

// SectionDoc returns what a section is for, in a sentence; "" if there is no such
// section.
func SectionDoc(section string) string { return doc.Of(section) }

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
			// A word starts at a capital behind a small letter. A run of capitals
			// is one word: authKey, controlURL, minTTL.
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
	return appendKeys(nil, reflect.ValueOf(Default()), Key{Scalar: true, index: []int{}})
}

// appendKeys appends the keys of the section v. in describes the section: its path,
// whether it is live and set by scalars, and its index.
func appendKeys(keys []Key, v reflect.Value, in Key) []Key {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		k := Key{
			Path:   strictyaml.Below(in.Path, strictyaml.FieldName(f)),
			Scalar: in.Scalar,
			Live:   in.Live || f.Tag.Get("live") != "",
		}
		k.Doc = doc.Of(k.Path)
		if in.index != nil {
			k.index = append(slices.Clone(in.index), i)
		}
		var isSection bool
		k.Type, isSection = keyType(f.Type)
		switch {
		case isSection && k.Type == "list":
			k.Scalar = false
			keys = append(keys, k)
			element := Key{Path: k.Path + "[]", Live: k.Live}
			keys = appendKeys(keys, reflect.Zero(f.Type.Elem()), element)
			continue
		case isSection:
			keys = appendKeys(keys, v.Field(i), k)
			continue
		case k.Type == "map":
			k.Scalar = false
		case k.Type != "list":
			k.Default = fmt.Sprint(v.Field(i))
		}
		keys = append(keys, k)
	}
	return keys
}

// keyType returns the Type of a key, and whether it is a section or a list of
// sections, which have keys of their own.
func keyType(t reflect.Type) (name string, isSection bool) {
	switch {
	case t == reflect.TypeFor[Duration]():
		return "duration", false
	case isText(t):
		return "string", false
	case t.Kind() == reflect.Bool:
		return "bool", false
	case t.Kind() == reflect.Int:
		return "number", false
	case t.Kind() == reflect.Map:
		return "map", false
	case t.Kind() == reflect.Slice:
		return "list", !isText(t.Elem())
	}
	return "", true
}

// Changes lists the paths of the keys that differ between two configurations: those
// that a running replica applies, and those that require a restart.
func Changes(old, changed *Config) (live, restart []string) {
	for _, k := range Keys() {
		if k.index == nil {
			continue // the list is compared as a whole
		}
		a := reflect.ValueOf(old).Elem().FieldByIndex(k.index)
		b := reflect.ValueOf(changed).Elem().FieldByIndex(k.index)
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

// set sets the key, which is Scalar, to the value that s stands for. The elements of
// a list are separated by commas. A mistake goes to r.
func (k Key) set(c *Config, s string, o strictyaml.Origin, r *strictyaml.Report) {
	r.SetOrigin(k.Path, o)
	v := reflect.ValueOf(c).Elem().FieldByIndex(k.index)
	if v.Kind() != reflect.Slice {
		if err := setScalar(v, s); err != nil {
			r.AddError(k.Path, err)
		}
		return
	}
	list := reflect.MakeSlice(v.Type(), 0, 0)
	for element := range strings.SplitSeq(s, ",") {
		element = strings.TrimSpace(element)
		if element == "" {
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if err := setScalar(e, element); err != nil {
			r.AddError(fmt.Sprintf("%s[%d]", k.Path, list.Len()), err)
		}
		list = reflect.Append(list, e)
	}
	v.Set(list)
}

func setScalar(v reflect.Value, s string) error {
	if t, ok := value.TextTypes[v.Type()]; ok {
		return t.Parse(s, v)
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("invalid value %q: write true or false", s)
		}
		v.SetBool(b)
	default:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("invalid number %q: write a whole number", s)
		}
		v.SetInt(int64(n))
	}
	return nil
}

// applyEnv sets the keys that environ, of the form of os.Environ, gives. An unknown
// PANDO_ variable is a mistake, unless Kubernetes made it for a Service whose name
// begins with pando.
func applyEnv(c *Config, environ []string, r *strictyaml.Report) {
	byEnv := map[string]Key{}
	var known []string
	for _, k := range Keys() {
		if k.Scalar {
			byEnv[k.Env()] = k
			known = append(known, k.Env())
		}
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		k, isKey := byEnv[name]
		switch {
		case !strings.HasPrefix(name, "PANDO_") || name == "PANDO_CONFIG":
		case ServiceVariable(name) && (!isKey || strings.Contains(value, "://")):
		case isKey:
			k.set(c, value, strictyaml.Origin{Where: name}, r)
		default:
			err := errors.New("unknown variable; docs/configuration.md lists all variables")
			if near := strictyaml.Nearest(name, known); near != "" {
				err = fmt.Errorf("unknown variable; did you mean %s?", near)
			}
			r.AddAt(strictyaml.Origin{Where: name}, "", err)
		}
	}
}

// ServiceVariable reports whether Kubernetes may have made a variable of this name:
// for a Service called pando it adds PANDO_SERVICE_HOST, PANDO_PORT_1055_TCP and the
// like to each pod.
func ServiceVariable(name string) bool {
	if strings.Contains(name, "_PORT_") && (strings.Contains(name, "_TCP") || strings.Contains(name, "_UDP")) {
		return true
	}
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") || strings.HasSuffix(name, "_PORT")
}

// applyFlags sets the keys that flags gives, by the names of Key.Flag.
func applyFlags(c *Config, flags map[string]string, r *strictyaml.Report) {
	for _, k := range Keys() {
		if value, ok := flags[k.Flag()]; ok && k.Scalar {
			k.set(c, value, strictyaml.Origin{Where: "--" + k.Flag()}, r)
		}
	}
}

// isText reports whether the type is written as one string.
func isText(t reflect.Type) bool {
	_, ok := value.TextTypes[t]
	return ok || t.Kind() == reflect.String
}
