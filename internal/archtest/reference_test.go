package archtest

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
)

var update = flag.Bool("update", false, "write the golden files")

const referencePage = "../../docs/configuration.md"

// Rule 6: the reference page has every key, as the code knows it. (That every
// bad configuration fails with its words is config's own test.)
func TestReferencePage(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Written by: go test ./internal/archtest -run ReferencePage -update -->

A replica is configured by, in rising precedence: the defaults, one YAML file
(` + "`--config FILE` or `PANDO_CONFIG`" + `), ` + "`PANDO_*`" + ` variables, and flags. Unknown keys
and unknown ` + "`PANDO_*`" + ` variables are errors. ` + "`pando check`" + ` reports every mistake at once.

Durations have a unit: ` + "`500ms`, `10s`, `2m30s`" + `. Lists in variables and flags are separated
by commas. A flag has the name of its variable: ` + "`PANDO_DRAIN_SETTLE` is `--drain-settle`" + `.

| key | type | default | variable | |
|---|---|---|---|---|
`)
	for _, k := range config.Keys() {
		def, env := "", ""
		if k.Default != "" {
			def = "`" + k.Default + "`"
		}
		if k.Scalar {
			env = "`" + k.Env() + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Path, k.Type, def, env, k.Doc)
		if k.Doc == "" {
			t.Errorf("%s has no description", k.Path)
		}
	}
	b.WriteString(`
## An example

` + "```yaml" + `
tailnet:
  controlURL: https://headscale.example.com
  hostname: pando-0
  authKeyFile: /var/run/secrets/pando/authkey
  stateDir: /var/lib/pando
resolve:
  hosts:
    legacy.example.com: [10.12.9.9]
policy:
  rules:
    - name: payments-only-from-their-pods
      names: ["*.payments.internal.example.com"]
      from: [10.244.7.0/24]
      action: allow
    - names: ["*.payments.internal.example.com"]
      action: deny
` + "```" + `

## How a request is judged

1. **Never allowed**, whatever the configuration says: loopback, link-local, cloud metadata,
   multicast and unspecified addresses, and the gateway's own port, in every spelling
   (decimal, octal and hexadecimal IPv4, IPv4-mapped, NAT64, 6to4 and 4via6 IPv6, and names
   that resolve there).
2. **Rules**, in order; the first one that matches decides. All fields of a rule must match;
   an empty field matches everything. Without a match the request is allowed.
3. **Reach**: what a peer of the tailnet routes goes through the tailnet. Anything else is
   refused, unless ` + "`policy.direct`" + ` lets it go through the host's own network.

A name is judged before it is looked up, as far as rules can judge it without an address, and
the address that was judged is the one that is dialled. Rules with names do not match requests
for bare addresses: pair them with a rule on prefixes where that matters.

With ` + "`policy.mode: report`" + ` steps 2 and 3 let everything pass and log what they would have denied
(` + "`would_deny`" + ` in the flow's line); step 1 stays final.
`)
	if *update {
		if err := os.WriteFile(referencePage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != b.String() {
		t.Error("docs/configuration.md is not what the code says: run go test ./internal/archtest -run ReferencePage -update")
	}
}

// Rule 6 again: the chart lets through exactly the sections that exist.
func TestChartSchema(t *testing.T) {
	data, err := os.ReadFile("../../charts/pando/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties struct {
			Config struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{}
	for _, k := range config.Keys() {
		section, _, _ := strings.Cut(k.Path, ".")
		want[section] = nil
		if _, ok := schema.Properties.Config.Properties[section]; !ok {
			t.Errorf("the chart's schema lacks config.%s", section)
		}
	}
	for section := range schema.Properties.Config.Properties {
		if _, ok := want[section]; !ok {
			t.Errorf("the chart's schema has config.%s, which is no section", section)
		}
	}
}
