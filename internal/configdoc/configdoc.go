// Package configdoc generates what users read about the configuration, from the
// comments above the fields in internal/config/schema.go: the reference page, the
// descriptions in internal/config/doc, which are the help of the flags, and the
// schema of the chart's value config. "make docs" writes them.
//
// The prose of the reference page and its examples are in docs/configuration.md.in,
// where a line "<!-- keys: NAME -->" stands for the keys of a section.
package configdoc

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/pandoproxy/pando/internal/config"
)

// File is a generated file.
type File struct {
	Path string // from the root of the repository
	Data []byte
}

// Files generates all files. root is the root of the repository.
func Files(root string) ([]File, error) {
	list, err := descriptions(filepath.Join(root, "internal/config/schema.go"))
	if err != nil {
		return nil, err
	}
	template, err := os.ReadFile(filepath.Join(root, "docs/configuration.md.in"))
	if err != nil {
		return nil, err
	}
	page, err := page(string(template), list)
	if err != nil {
		return nil, err
	}
	code, err := code(list)
	if err != nil {
		return nil, err
	}
	const chart = "charts/pando/values.schema.json"
	old, err := os.ReadFile(filepath.Join(root, chart))
	if err != nil {
		return nil, err
	}
	schema, err := schema(old, list)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", chart, err)
	}
	return []File{
		{"docs/configuration.md", []byte(page)},
		{"internal/config/doc/doc_gen.go", code},
		{chart, schema},
	}, nil
}

// description is the comment above a field.
type description struct {
	path string // of the key or the section: "policy.rules[].from"
	text string // one paragraph; literal values are in backquotes
}

// plain returns the text without backquotes.
func (d description) plain() string { return strings.ReplaceAll(d.text, "`", "") }

// descriptions reads the comments above the fields of Config, and of the types that
// its fields have. A field without a comment is an error.
func descriptions(file string) ([]description, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	structs := map[string]*ast.StructType{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok {
			if s, ok := spec.Type.(*ast.StructType); ok {
				structs[spec.Name.Name] = s
			}
		}
		return true
	})
	if structs["Config"] == nil {
		return nil, fmt.Errorf("%s: no struct Config", file)
	}
	return fields(nil, structs, "Config", "")
}

// fields appends the descriptions of the fields of a struct, whose keys are below
// prefix.
func fields(list []description, structs map[string]*ast.StructType, name, prefix string) ([]description, error) {
	for _, f := range structs[name].Fields.List {
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json")
		key, _, _ := strings.Cut(tag, ",")
		d := description{path: prefix + key, text: strings.Join(strings.Fields(f.Doc.Text()), " ")}
		if d.text == "" {
			return nil, fmt.Errorf("%s.%s has no comment", name, f.Names[0].Name)
		}
		list = append(list, d)
		suffix := "."
		typ := f.Type
		if array, ok := typ.(*ast.ArrayType); ok {
			suffix = "[]."
			typ = array.Elt
		}
		element, ok := typ.(*ast.Ident)
		if !ok || structs[element.Name] == nil {
			continue
		}
		var err error
		list, err = fields(list, structs, element.Name, d.path+suffix)
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// code returns doc_gen.go.
func code(list []description) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("// Code generated from internal/config/schema.go by \"make docs\". DO NOT EDIT.\n\npackage doc\n\nvar descriptions = map[string]string{\n")
	for _, d := range list {
		fmt.Fprintf(&b, "%q: %q,\n", d.path, d.plain())
	}
	b.WriteString("}\n")
	return format.Source(b.Bytes())
}

const header = "<!-- Generated from docs/configuration.md.in and internal/config/schema.go by \"make docs\". Do not edit. -->\n\n"

// page returns the reference page: the template with the keys of each section.
// Every section must be in the template once.
func page(template string, list []description) (string, error) {
	texts := map[string]string{}
	for _, d := range list {
		texts[d.path] = d.text
	}
	missing := map[string]bool{}
	for _, k := range config.Keys() {
		missing[k.Section()] = true
	}
	var b strings.Builder
	b.WriteString(header)
	for line := range strings.Lines(template) {
		name, ok := strings.CutPrefix(line, "<!-- keys: ")
		name = strings.TrimSuffix(name, " -->\n")
		switch {
		case !ok:
			b.WriteString(line)
		case !missing[name]:
			return "", fmt.Errorf("docs/configuration.md.in: section %q is unknown, or there twice", name)
		default:
			delete(missing, name)
			b.WriteString(section(name, texts))
		}
	}
	for name := range missing {
		return "", fmt.Errorf("docs/configuration.md.in: section %q is missing", name)
	}
	return b.String(), nil
}

// section returns the description of a section and the list of its keys.
func section(name string, texts map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", wrap(texts[name], ""))
	for _, k := range config.Keys() {
		if k.Section() == name && k.Path != name {
			item := fmt.Sprintf("- **`%s`**: %s *%s.*", k.Path, texts[k.Path], facts(k))
			b.WriteString(wrap(item, "  "))
		}
	}
	return b.String()
}

// facts returns the type of a key, its default and its variable.
func facts(k config.Key) string {
	list := []string{strings.ToUpper(k.Type[:1]) + k.Type[1:]}
	if k.Default != "" {
		list = append(list, "default `"+k.Default+"`")
	}
	if k.Scalar {
		list = append(list, "`"+k.Env()+"`")
	}
	if k.Live {
		list = append(list, "live")
	}
	return strings.Join(list, ", ")
}

// wrap breaks text into lines of at most 100 characters. The lines after the first
// begin with indent.
func wrap(text, indent string) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > 100:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	b.WriteByte('\n')
	return b.String()
}
