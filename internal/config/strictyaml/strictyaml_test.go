package strictyaml

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

type document struct {
	On    bool                `json:"on"`
	Count int                 `json:"count"`
	Name  string              `json:"name"`
	Names []string            `json:"names"`
	Table map[string][]string `json:"table"`
	Inner inner               `json:"inner"`
	List  []inner             `json:"list"`
}

type inner struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// decode decodes a document onto the zero value. It returns the mistakes, one a line.
func decode(doc string) (document, string) {
	var d document
	r := &Report{}
	Decode("", []byte(doc), &d, Options{Foreign: "foreign", Unknown: "see the manual"}, r)
	if err := r.Err(); err != nil {
		return d, err.Error()
	}
	return d, ""
}

// TestDecode checks valid documents.
func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name, doc string
		want      document
	}{
		{"empty", "", document{}},
		{"comment", "# nothing\n", document{}},
		{"null", "~\n", document{}},
		{"empty_mapping", "{}", document{}},
		{"null_value", "name:\nlist: ~\n", document{}},
		{"json", `{"name": "a", "count": 2}`, document{Name: "a", Count: 2}},
		{"bool", "on: true\n", document{On: true}},
		{"bool_of_yaml_1.1", "on: yes\n", document{On: true}},
		{"bool_in_capitals", "on: TRUE\n", document{On: true}},
		{"whole_float", "count: 1e3\n", document{Count: 1000}},
		{"octal", "count: 0o17\n", document{Count: 15}},
		{"quoted_number", "name: '5'\n", document{Name: "5"}},
		{"date", "name: 2026-01-02\n", document{Name: "2026-01-02"}},
		{"tagged", "name: !!str 5\n", document{Name: "5"}},
		{"block", "name: |-\n  a\n  b\n", document{Name: "a\nb"}},
		{"keys_of_the_user", "table: {y: [a], 8080: [b], on: []}\n", document{Table: map[string][]string{"y": {"a"}, "8080": {"b"}, "on": {}}}},
		{"alias", "inner: &x {name: a}\nlist: [*x, {count: 1}]\n", document{Inner: inner{Name: "a"}, List: []inner{{Name: "a"}, {Count: 1}}}},
		{"merge", "inner: &x {name: a, count: 1}\nlist: [{<<: *x, count: 2}]\n", document{Inner: inner{"a", 1}, List: []inner{{"a", 2}}}},
		{"merge_of_a_list", "list: [&x {name: a}, &y {name: b, count: 3}, {<<: [*x, *y]}]\n", document{List: []inner{{"a", 0}, {"b", 3}, {"a", 3}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, mistakes := decode(c.doc)
			if mistakes != "" || !reflect.DeepEqual(got, c.want) {
				t.Errorf("decode(%q) = %+v, %q, want %+v", c.doc, got, mistakes, c.want)
			}
		})
	}
}

// TestMistakes checks the mistakes of invalid documents, and that they are in order.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ name, doc, want string }{
		{"string_for_bool", "on: 'true'\n", "1:1: on: got a string, want true or false, without quotes"},
		{"number_for_bool", "on: 1\n", "1:1: on: got a number, want true or false, without quotes"},
		{"bool_for_string", "name: true\n", "1:1: name: got true or false, want a string; put it in quotes"},
		{"yaml_1.1_bool_for_string", "name: no\n", "1:1: name: got true or false, want a string; put it in quotes"},
		{"fraction", "count: 1.5\n", "1:1: count: not a whole number"},
		{"infinity", "count: .inf\n", "1:1: count: not a whole number"},
		{"huge", "count: 123456789012345678901234567890\n", "1:1: count: not a whole number"},
		{"scalar_for_list", "names: a\n", "1:1: names: got a string, want a list, such as [a, b]"},
		{"list_for_table", "table: [a]\n", "1:1: table: got a list, want a mapping: keys on lines of their own, indented"},
		{"scalar_for_section", "inner: 1\n", "1:1: inner: got a number, want a mapping: keys on lines of their own, indented"},
		{"null_element", "names: [a, null]\n", "1:12: names[1]: the element is empty; write a value, or remove it"},
		{"null_section_element", "list:\n-\n", "2:2: list[0]: the element is empty; write a value, or remove it"},
		{"element", "names:\n- a\n- 5\n", "3:3: names[1]: got a number, want a string; put it in quotes"},
		{"table_element", "table: {a b: [5]}\n", "1:15: table.a b[0]: got a number, want a string; put it in quotes"},
		{"unknown", "nmae: a\n", "1:1: nmae: unknown key; did you mean name?"},
		{"unknown_beside_known", "name: a\nelephant: b\n", "2:1: elephant: unknown key; see the manual"},
		{"unknown_in_an_element", "list:\n- name: a\n  cuont: 1\n", "3:3: list[0].cuont: unknown key; did you mean list[0].count?"},
		{"unknown_and_long", "name: a\ntskey-auth-kABCDEF1CNTRL-0123456789: b\n", "2:1: unknown key; see the manual"},
		{"unknown_and_merged", "inner: &x {name: a}\nlist: [{<<: *x, on: true}]\n", "2:17: list[0].on: unknown key; see the manual"},
		{"duplicate", "name: a\ncount: 1\nname: b\n", "3:1: name: duplicate key; the first one is in line 1"},
		{"duplicate_twice", "inner: {name: a, name: b, name: c}\n", "1:18: inner.name: duplicate key; the first one is in line 1\n1:27: inner.name: duplicate key; the first one is in line 1"},
		{"duplicate_in_a_list", "list:\n- {name: a, name: b}\n", "2:13: list[0].name: duplicate key; the first one is in line 2"},
		{"second_document", "name: a\n---\nname: b\n", `2:1: more than one YAML document; keep one, and remove the lines "---"`},
		{"broken_second_document", "name: a\n---\n{\n", "3:1: invalid YAML: did not find expected node content"},
		{"not_a_mapping", "[a]\n", "foreign"},
		{"other_keys", "elephant: 1\ngiraffe: 2\n", "foreign"},
		{"anchor_in_itself", "names: &a [*a]\n", "invalid YAML: an anchor contains itself"},
		{"merge_of_itself", "inner: &a {<<: *a}\n", "invalid YAML: an anchor contains itself"},
		{"merge_of_a_scalar", "inner: {<<: 1}\n", "invalid YAML: a tag does not match its value, or a key is not a word"},
		{"tag", "count: !!int a\n", "invalid YAML: a tag does not match its value, or a key is not a word"},
		{"key_that_is_a_mapping", "? {a: b}\n: c\nname: d\n", "invalid YAML: a tag does not match its value, or a key is not a word"},
		{"not_text", "name: \xff\n", "not a text file"},
		{"order", "zebra: 1\nname: 5\non: 1\ninner: {nmae: 1, count: x}\n", "1:1: zebra: unknown key; see the manual\n" +
			"2:1: name: got a number, want a string; put it in quotes\n3:1: on: got a number, want true or false, without quotes\n" +
			"4:9: inner.nmae: unknown key; did you mean inner.name?\n4:18: inner.count: got a string, want a whole number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := decode(c.doc); got != c.want {
				t.Errorf("decode(%q) gives\n%s\nwant\n%s", c.doc, got, c.want)
			}
		})
	}
}

// TestManyAliases checks that aliases cannot multiply a document without bound.
func TestManyAliases(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	if _, got := decode(b.String()); got != "invalid YAML: it has too many aliases" {
		t.Errorf("decode gives %q", got)
	}
}

// TestNearest checks which words are similar.
func TestNearest(t *testing.T) {
	candidates := []string{"listen", "tailnet", "dns", "timeout", "minTTL", "ports"}
	for name, want := range map[string]string{
		"lisen":    "listen",
		"timeoutt": "timeout",
		"tiemout":  "timeout",
		"MinTTL":   "minTTL",
		"mintl":    "minTTL",
		"port":     "ports",
		"dsn":      "dns",
		"":         "",
		"elephant": "",
		"größe":    "",
	} {
		if got := Nearest(name, candidates); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
