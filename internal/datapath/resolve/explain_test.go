package resolve

import (
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// TestExplain checks what a person reads about each source of a name.
func TestExplain(t *testing.T) {
	zone := newServer(t, records(apiA, "www.corp.example. 60 IN CNAME cdn.known."))
	pod := newServer(t, records("cdn.known. 60 IN A 203.0.113.1"))
	r := newResolver(t, Options{Tailnet: up(TailnetDNS{
		Routes: map[string][]string{"corp.example": {"10.9.9.1"}},
		Search: []string{"corp.example"},
	})}, map[string]*server{"10.9.9.1": zone, base: pod})
	for _, tc := range []struct {
		host  string
		class flow.Class
		want  []string // parts of the lines, in order
	}{
		{"10.0.0.1", flow.OK, []string{"literal 10.0.0.1: an address needs no lookup"}},
		{"api.corp.example", flow.OK, []string{
			"hosts api.corp.example: no entry", "hosts_file api.corp.example: no entry", "record api.corp.example: no entry", "magicdns api.corp.example: not asked: MagicDNS is off",
			"resolver 10.9.9.1 api.corp.example: AAAA: NOERROR, 0 records, in ", "resolver 10.9.9.1 api.corp.example: A: NOERROR, 1 records, in ",
			"zone corp.example api.corp.example: 10.0.0.1, for 1m0s", "base api.corp.example: not asked: the name has an owner"}},
		{"api", flow.OK, []string{"zone corp.example api.corp.example: 10.0.0.1", "base api.corp.example: not asked: a search domain of the tailnet completes the name"}},
		{"www.corp.example", flow.OK, []string{"zone corp.example www.corp.example: is an alias of cdn.known", "base cdn.known: 203.0.113.1"}},
		{"none.corp.example", flow.NotFound, []string{"zone corp.example none.corp.example: does not exist"}},
	} {
		h, err := host.Parse(tc.host)
		if err != nil {
			t.Fatal(err)
		}
		_, steps, err := r.Explain(t.Context(), h, nil)
		if flow.ClassOf(err) != tc.class {
			t.Errorf("Explain(%s): %v, want class %s", tc.host, err, tc.class)
		}
		var lines strings.Builder
		for _, s := range steps {
			lines.WriteString(s.Source + " " + s.Name + ": " + s.Says + "\n")
		}
		rest := lines.String()
		for _, want := range tc.want {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("Explain(%s) says\n%swant %q, in this order", tc.host, &lines, want)
				break
			}
			rest = after
		}
	}
}
