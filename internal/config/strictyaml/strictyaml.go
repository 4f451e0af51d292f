// Package strictyaml decodes a YAML file onto a struct, by the json tags of its
// fields, and reports all mistakes at once, each with its line, its column and the
// path of its key. Unknown keys, duplicate keys, second documents and values of the
// wrong kind are mistakes.
//
// The messages show keys, but never a string from the file: a value may be a secret
// in the wrong place, and the file may be something else, such as a private key.
// Only the parsers of Options.Text may quote the values that they read.
//
// The package knows YAML and reflection. It does not know what the keys mean.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Options describe the schema beyond its types.
type Options struct {
	// Text has the types that are written as one string. All string types are, too.
	Text map[reflect.Type]TextType

	// Null is called for a key with nothing behind its colon, which leaves what v
	// has. It may change v, or add a mistake to r. Nil does neither.
	Null func(path string, v reflect.Value, r *Report)

	// Empty is the message for a file without any text. "" means that it is valid.
	Empty string

	// Foreign is the message for a file that has none of the schema's keys, or
	// that is not a mapping; Unknown is the remedy for an unknown key that is not
	// similar to a known one.
	Foreign, Unknown string
}

// TextType is how values of a type are written.
type TextType struct {
	Want  string // "a duration, such as 10s"
	Parse func(s string, v reflect.Value) error
}

// Decode decodes data onto v, a pointer to a struct. Its mistakes go to r, and the
// places of its keys are set as origins. file is the name for the origins; it may be
// empty. Decode reports false if the file as a whole cannot be used.
func Decode(file string, data []byte, v any, o Options, r *Report) bool {
	d := &decoder{Report: r, Options: o, file: file}
	if o.Empty != "" && len(bytes.TrimSpace(data)) == 0 {
		d.AddAt(Origin{Where: file}, "", errors.New(o.Empty))
		return false
	}
	root, ok := d.document(data)
	if root == nil {
		return ok
	}
	if d.duplicates(root, "") {
		return false
	}
	// The library checks the rest while it decodes: anchors that contain themselves,
	// aliases that multiply, and tags that do not match their values.
	var ignored any
	if err := root.Decode(&ignored); err != nil {
		d.AddAt(Origin{Where: d.file}, "", errors.New("invalid YAML: "+decodeProblem(err)))
		return false
	}
	schema := reflect.ValueOf(v).Elem()
	if root.Kind != yaml.MappingNode || isForeign(root, schema.Type()) {
		d.AddAt(Origin{Where: d.file}, "", errors.New(d.Foreign))
		return false
	}
	d.section(root, schema, "")
	return true
}

type decoder struct {
	*Report
	Options
	file string
}

// document returns the root of the only document. It is nil if the file is empty,
// or if it is not valid, for which ok is false.
func (d *decoder) document(data []byte) (root *yaml.Node, ok bool) {
	docs, err := parse(bytes.NewReader(data))
	switch {
	case err != nil:
		d.syntax(data, err)
		return nil, false
	case len(docs) > 1:
		d.AddAt(d.at(docs[1]), "", errors.New(`more than one YAML document; keep one, and remove the lines "---"`))
		return nil, false
	case len(docs) == 0 || len(docs[0].Content) == 0 || isNull(docs[0].Content[0]):
		return nil, true
	}
	return docs[0].Content[0], true
}

// decodeProblem says why a document cannot be decoded. The library's own words
// repeat values.
func decodeProblem(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "contains itself"):
		return "an anchor contains itself"
	case strings.Contains(text, "excessive aliasing"):
		return "it has too many aliases"
	}
	return "a tag does not match its value, or a key is not a word"
}

// at returns the place of a node.
func (d *decoder) at(n *yaml.Node) Origin {
	where := strings.TrimPrefix(fmt.Sprintf("%s:%d:%d", d.file, n.Line, n.Column), ":")
	return Origin{Where: where, Line: n.Line, Column: n.Column}
}

// duplicates reports the keys in n and below it that occur twice in one mapping, and
// whether there are any.
func (d *decoder) duplicates(n *yaml.Node, path string) (found bool) {
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			found = d.duplicates(child, element(path, i)) || found
		case n.Kind == yaml.MappingNode && i%2 == 0:
			for j := 0; j < i; j += 2 {
				first := n.Content[j]
				if first.Kind == yaml.ScalarNode && child.Kind == yaml.ScalarNode && first.Value == child.Value {
					d.AddAt(d.at(child), Below(path, printable(child)), fmt.Errorf("duplicate key; the first one is in line %d", first.Line))
					found = true
					break
				}
			}
		case n.Kind == yaml.MappingNode:
			found = d.duplicates(child, Below(path, printable(n.Content[i-1]))) || found
		}
	}
	return found
}

// isForeign reports whether a mapping is something else: none of its keys is a key
// of the schema, or similar to one.
func isForeign(root *yaml.Node, schema reflect.Type) bool {
	list := pairs(root)
	return len(list) > 0 && !slices.ContainsFunc(list, func(p pair) bool {
		return Nearest(p.key.Value, names(schema)) != ""
	})
}

// names lists the keys of a section, in the order of its fields.
func names(section reflect.Type) []string {
	list := make([]string, section.NumField())
	for i := range list {
		list[i] = FieldName(section.Field(i))
	}
	return list
}

// FieldName returns the key of a field: the name in its json tag.
func FieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// Below returns the path of a key in the section at path.
func Below(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "." + name
}

func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

var word = regexp.MustCompile(`^[A-Za-z0-9_.*-]{1,32}$`)

// printable returns a key as a message may show it; "" if it is anything but a short
// word, which may be a secret in the wrong place.
func printable(key *yaml.Node) string {
	if key.Kind == yaml.ScalarNode && word.MatchString(key.Value) {
		return key.Value
	}
	return ""
}
