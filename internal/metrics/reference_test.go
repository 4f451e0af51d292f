package metrics

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
)

// The page, and what it is made from.
const (
	referencePage     = "../../docs/metrics.md"
	referenceTemplate = "../../docs/metrics.md.in"
	logKeySource      = "../flow/record.go"
)

// TestReference checks that docs/metrics.md has every metric, every value of its
// labels and every key of a flow's log line, as the code has them. With -update
// it writes the page from docs/metrics.md.in; make docs calls it so.
func TestReference(t *testing.T) {
	template, err := os.ReadFile(referenceTemplate)
	if err != nil {
		t.Fatal(err)
	}
	page := string(template)
	for mark, table := range map[string]string{
		"{{metrics}}":  metricsTable(t),
		"{{labels}}":   labelsTable(),
		"{{log keys}}": logKeysTable(t),
	} {
		if strings.Count(page, mark) != 1 {
			t.Errorf("%s contains %s %d times, want once", referenceTemplate, mark, strings.Count(page, mark))
		}
		page = strings.Replace(page, mark, strings.TrimSuffix(table, "\n"), 1)
	}
	page = "<!-- Generated from docs/metrics.md.in and the code by \"make docs\". Do not edit. -->\n\n" + page
	if *update {
		if err := os.WriteFile(referencePage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != page {
		t.Errorf("docs/metrics.md is not up to date; run: make docs")
	}
}

// metricsTable lists the metrics by name, with their type, labels and help.
func metricsTable(t *testing.T) string {
	t.Helper()
	families, err := example().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "pando_") {
			continue
		}
		var labels []string
		for _, pair := range f.GetMetric()[0].GetLabel() {
			if labelValues[pair.GetName()] == nil {
				t.Errorf("%s has the label %s: add it and its values to labelValues", f.GetName(), pair.GetName())
			}
			labels = append(labels, "`"+pair.GetName()+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	return b.String()
}

// labelValues lists the values of each label, or says what they are.
var labelValues = map[string][]string{
	"cached":    {"true", "false"},
	"class":     classNames(),
	"direction": directions,
	"front":     frontNames(),
	"limit":     limitNames(),
	"outcome":   outcomes,
	"path":      {direct, relay, unused},
	"rcode":     slices.Concat(rcodes, []string{"FORMERR", "NOTIMP", "BADVERS"}),
	"source":    sources,
	"tailscale": {"the version of the Tailscale engine"},
	"version":   {"the version of Pando"},
}

// sources are the kinds of sources that resolve.Options.Looked gets, and none.
var sources = []string{
	resolve.SourceHosts,
	resolve.SourceFile,
	resolve.SourceRecord,
	resolve.SourceNode,
	resolve.SourceMagicDNS,
	strings.TrimSpace(resolve.SourceZone),
	resolve.SourceGlobal,
	resolve.SourceServed,
	resolve.SourceBase,
	noSource,
}

func classNames() []string {
	var names []string
	for _, c := range flow.Classes() {
		names = append(names, c.String())
	}
	return names
}

func frontNames() []string {
	var names []string
	for _, f := range flow.Fronts() {
		names = append(names, string(f))
	}
	return names
}

func limitNames() []string {
	var names []string
	for _, l := range limit.All() {
		names = append(names, string(l))
	}
	return names
}

func labelsTable() string {
	var b strings.Builder
	b.WriteString("| label | values |\n|---|---|\n")
	names := make([]string, 0, len(labelValues))
	for name := range labelValues {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values := strings.Join(labelValues[name], "`, `")
		if strings.Contains(values, " ") && len(labelValues[name]) == 1 { // words that describe the value
			fmt.Fprintf(&b, "| `%s` | %s |\n", name, values)
			continue
		}
		fmt.Fprintf(&b, "| `%s` | `%s` |\n", name, values)
	}
	return b.String()
}

// logKey is a key of a flow's log line, as its declaration describes it.
type logKey struct{ key, present, meaning string }

// readLogKeys reads the declarations of the keys, in order.
func readLogKeys(t *testing.T) (list []logKey) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), logKeySource, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "key") {
			return true
		}
		key, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		present, meaning, ok := strings.Cut(strings.Join(strings.Fields(spec.Doc.Text()), " "), ": ")
		if !ok {
			t.Errorf("%s: %s has no comment \"PRESENT: MEANING\"", logKeySource, spec.Names[0].Name)
		}
		list = append(list, logKey{key, present, meaning})
		return false
	})
	return list
}

// logKeysTable lists the keys that are declared, which must be those of a record
// that has all.
func logKeysTable(t *testing.T) string {
	t.Helper()
	addr := netip.MustParseAddrPort("10.12.3.4:443")
	full := flow.Record{
		Request: flow.Request{Front: flow.HTTP, Client: addr, User: "ann", Host: "db", Port: 443},
		Source:  resolve.SourceHosts,
		Rule:    "1",
		Report:  "rule 1",
		Addr:    addr,
		Path:    flow.Direct,
		Reused:  true,
		Status:  502,
		Method:  "GET",
		Resolve: time.Second,
		Dial:    time.Second,
		Total:   time.Second,
		Err:     &flow.Error{Class: flow.Reset, Hint: "try again"},
	}
	var b bytes.Buffer
	b.WriteString("| key | present | meaning |\n|---|---|---|\n")
	var keys []string
	for _, k := range readLogKeys(t) {
		keys = append(keys, k.key)
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.key, k.present, k.meaning)
	}
	var want []string
	for _, a := range full.LogValue().Group() {
		want = append(want, a.Key)
		if a.Value.Kind() == slog.KindString && a.Value.String() == "" {
			t.Errorf("the record of this test has no %s", a.Key)
		}
	}
	if !slices.Equal(keys, want) {
		t.Errorf("%s declares the keys %q, want those of the log line: %q", logKeySource, keys, want)
	}
	return b.String()
}
