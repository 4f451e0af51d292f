package strictyaml

import (
	"strings"
	"testing"
	"time"
)

// TestSyntaxErrors checks that a text that is not YAML is reported with the line and
// the column of the problem, and not with those of the section around it.
func TestSyntaxErrors(t *testing.T) {
	const brackets = "did not find expected ',' or '}'"
	far := strings.Repeat("more\n", 200)
	for _, c := range []struct{ name, doc, want string }{
		{"tab", "inner:\n\tname: a\n", "2:1: invalid YAML: indent with spaces, not tabs"},
		{"tab_in_the_first_line", "\tname: a\n", "1:1: invalid YAML: indent with spaces, not tabs"},
		{"tab_in_a_later_line", "inner:\n  name: a\n\tcount: 1\n", "3:1: invalid YAML: indent with spaces, not tabs"},
		{"tab_after_spaces", "inner:\n  name: a\n  \tcount: 1\n", "3:3: invalid YAML: indent with spaces, not tabs"},
		{"tab_and_crlf", "inner:\r\n\tname: a\r\n", "2:1: invalid YAML: indent with spaces, not tabs"},
		{"indented_too_little", "inner:\n  name: a\n count: 1\n", "3:2: invalid YAML: did not find expected key"},
		{"end_of_a_long_section", "table:\n" + strings.Repeat("  a: []\n", 200) + " b: []\n", "202:2: invalid YAML: did not find expected key"},
		{"indented_list", "names:\n- a\n -b: c\n", "3:4: invalid YAML: mapping values are not allowed in this context"},
		{"list_in_a_mapping", "inner: {name: a}\n- b\n", "2:1: invalid YAML: did not find expected key"},
		{"no_colon", "inner:\n  count: 1\n  name a\non: true\n", "3:3: invalid YAML: could not find expected ':'"},
		{"second_colon", "inner:\n  name: a: b\n", "2:10: invalid YAML: mapping values are not allowed in this context"},
		{"second_colon_behind_letters", "name: ä: b\n", "1:8: invalid YAML: mapping values are not allowed in this context"},
		{"reserved_character", "inner:\n  name: @a\n", "2:9: invalid YAML: found character that cannot start any token"},
		{"unknown_escape", "inner:\n  name: \"\\q\"\n", "2:9: invalid YAML: found unknown escape character"},
		{"unknown_anchor", "inner:\n  name: *secret\n", "2:9: invalid YAML: unknown anchor"},
		{"open_bracket", "inner: {name: a\non: true\n", "1:8: invalid YAML: " + brackets},
		{"open_quote", "inner:\n  name: \"a\non: true\n", "2:9: invalid YAML: found unexpected end of stream"},
		{"open_quote_far_from_the_end", "inner:\n  name: \"a\n" + far, "2:3: invalid YAML: found unexpected end of stream"},
		{"json", "{\n\"name\": \"a\"\n\"count\": 1\n}\n", "3:1: invalid YAML: " + brackets},
		{"json_below", "# c\n{\n\"inner\": {\n\"name\": \"a\"\n\"count\": 1}\n}\n", "3:1: invalid YAML: " + brackets},
		{"second_document", "on: true\n---\n  name: @\n", "3:9: invalid YAML: found character that cannot start any token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, mistakes := decode(c.doc); mistakes != c.want {
				t.Errorf("decode(%q) gives\n%s\nwant\n%s", c.doc, mistakes, c.want)
			}
		})
	}
}

// TestLongLine checks that the place of a problem is not searched for long in a file
// that is one long line.
func TestLongLine(t *testing.T) {
	begin := time.Now()
	doc := `{"names": [` + strings.Repeat(`"a",`, 50_000) + "}\n"
	if _, mistakes := decode(doc); !strings.HasPrefix(mistakes, "1:1: invalid YAML: ") {
		t.Errorf("decode gives %.200s, want invalid YAML in line 1", mistakes)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("decode took %v", took)
	}
}
