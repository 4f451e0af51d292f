package strictyaml

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// section decodes a mapping onto the struct v, which is at path.
func (d *decoder) section(n *yaml.Node, v reflect.Value, path string) {
	for _, p := range pairs(n) {
		i := slices.Index(names(v.Type()), p.key.Value)
		if i < 0 {
			d.unknown(p.key, v.Type(), path)
			continue
		}
		at := Below(path, p.key.Value)
		d.SetOrigin(at, d.at(p.key))
		d.value(p.value, v.Field(i), at)
	}
}

// unknown reports a key that the section at path does not have.
func (d *decoder) unknown(key *yaml.Node, section reflect.Type, path string) {
	err := errors.New("unknown key; " + d.Unknown)
	if near := Nearest(key.Value, names(section)); near != "" {
		err = fmt.Errorf("unknown key; did you mean %s?", Below(path, near))
	}
	d.AddAt(d.at(key), Below(path, printable(key)), err)
}

// value decodes n onto v, which is the key or the list element at path.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	text, isText := d.Text[v.Type()]
	switch {
	case isNull(n):
		if d.Null != nil {
			d.Null(path, v, d.Report)
		}
	case isText:
		d.text(n, v, path, text)
	case v.Kind() == reflect.String:
		d.text(n, v, path, TextType{
			Want:  "a string; put it in quotes",
			Parse: func(s string, v reflect.Value) error { v.SetString(s); return nil },
		})
	case v.Kind() == reflect.Bool:
		d.bool(n, v, path)
	case v.Kind() == reflect.Int:
		d.int(n, v, path)
	case v.Kind() == reflect.Slice:
		d.list(n, v, path)
	case n.Kind != yaml.MappingNode:
		d.wrong(path, n, "a mapping: keys on lines of their own, indented")
	case v.Kind() == reflect.Map:
		d.table(n, v, path)
	default:
		d.section(n, v, path)
	}
}

func (d *decoder) text(n *yaml.Node, v reflect.Value, path string, t TextType) {
	if kindOf(n) != aString {
		d.wrong(path, n, t.Want)
		return
	}
	if err := t.Parse(n.Value, v); err != nil {
		d.AddError(path, err)
	}
}

func (d *decoder) bool(n *yaml.Node, v reflect.Value, path string) {
	if kindOf(n) != aBool {
		d.wrong(path, n, "true or false, without quotes")
		return
	}
	v.SetBool(slices.Contains([]string{"true", "yes", "on", "y"}, strings.ToLower(n.Value)))
}

func (d *decoder) int(n *yaml.Node, v reflect.Value, path string) {
	if kindOf(n) != aNumber {
		d.wrong(path, n, "a whole number")
		return
	}
	var f float64
	if err := n.Decode(&f); err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		d.Add(path, "not a whole number")
		return
	}
	v.SetInt(int64(f))
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.wrong(path, n, "a list, such as [a, b]")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, e := range n.Content {
		at := element(path, i)
		d.SetOrigin(at, d.at(e))
		e = resolved(e)
		if isNull(e) {
			d.Add(at, "the element is empty; write a value, or remove it")
			continue
		}
		d.value(e, list.Index(i), at)
	}
	v.Set(list)
}

// table decodes a mapping whose keys are the user's own.
func (d *decoder) table(n *yaml.Node, v reflect.Value, path string) {
	table := reflect.MakeMap(v.Type())
	for _, p := range pairs(n) {
		at := Below(path, p.key.Value)
		d.SetOrigin(at, d.at(p.key))
		value := reflect.New(v.Type().Elem()).Elem()
		d.value(p.value, value, at)
		table.SetMapIndex(reflect.ValueOf(p.key.Value).Convert(v.Type().Key()), value)
	}
	v.Set(table)
}

// wrong reports a value of the wrong kind.
func (d *decoder) wrong(path string, n *yaml.Node, want string) {
	d.Add(path, "got %s, want %s", kindOf(n), want)
}

// The kinds of nodes, in words for a message.
const (
	aMapping = "a mapping"
	aList    = "a list"
	aString  = "a string"
	aNumber  = "a number"
	aBool    = "true or false"
)

// yaml11Bools are the words that are true or false in YAML 1.1 only. The parser knows
// YAML 1.2, but people and tools still write them.
var yaml11Bools = []string{"y", "n", "yes", "no", "on", "off"}

func kindOf(n *yaml.Node) string {
	tag := n.ShortTag()
	switch {
	case n.Kind == yaml.MappingNode:
		return aMapping
	case n.Kind == yaml.SequenceNode:
		return aList
	case tag == "!!bool" || n.Style == 0 && slices.Contains(yaml11Bools, strings.ToLower(n.Value)):
		return aBool
	case tag == "!!int" || tag == "!!float":
		return aNumber
	}
	return aString
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// resolved returns the node that an alias stands for, or the node itself.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

type pair struct{ key, value *yaml.Node }

// pairs lists the keys of a mapping with their values; those that are merged into it
// (<<) are last. A key of the mapping itself wins over a merged one.
func pairs(n *yaml.Node) []pair {
	var own, merged []pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		value := resolved(n.Content[i+1])
		switch {
		case key.ShortTag() != "!!merge":
			own = append(own, pair{key, value})
		case value.Kind == yaml.MappingNode:
			merged = append(merged, pairs(value)...)
		default: // a list of mappings
			for _, m := range value.Content {
				merged = append(merged, pairs(resolved(m))...)
			}
		}
	}
	for _, m := range merged {
		if !slices.ContainsFunc(own, func(p pair) bool { return p.key.Value == m.key.Value }) {
			own = append(own, m)
		}
	}
	return own
}
