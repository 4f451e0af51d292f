package archtest

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

A running replica takes over the keys that are marked **live**, when the file changes (a mounted
ConfigMap too) or on SIGHUP, and names the others that changed: they want a restart. A file with
a mistake changes nothing; ` + "`/readyz?verbose`, the log and `pando_config_last_reload_successful`" + ` say so.

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
		live := ""
		if k.Live {
			live = " **live**"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s%s |\n", k.Path, k.Type, def, env, k.Doc, live)
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
   (decimal, octal and hexadecimal IPv4, IPv4-mapped, IPv4-translated, NAT64, 6to4 and 4via6
   IPv6, and names that resolve there).
2. **Rules**, in order; the first one that matches decides. All fields of a rule must match;
   a field that is left out matches everything, and an empty list is a mistake, as is ` + "`rules:`" + `
   with nothing behind it. Without a match the request is allowed. A rule that denies looks inside IPv6 addresses: ` + "`10.12.0.0/16`" + ` under
   its ` + "`prefixes`" + ` has the NAT64, 6to4 and 4via6 spellings of those addresses too. A rule that
   allows has only what is written there: allow such addresses by their own prefix.
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

// chartOwns are the keys that the chart sets by values of its own, of which
// other objects depend: ports, the security context, the grace period.
var chartOwns = []string{
	"listen.proxy", "listen.admin", "tailnet.mode", "tailnet.hostname", "tailnet.controlURL", "tailnet.tags",
	"tailnet.authKey", "tailnet.authKeyFile", "tailnet.clientSecret", "tailnet.clientSecretFile", "tailnet.kubeSecret", "tailnet.stateDir",
	"drain.settle", "drain.timeout",
}

// Rule 6 again: the chart's value config takes exactly the keys that exist and
// that are not its own, with their types.
func TestChartSchema(t *testing.T) {
	const path = "../../charts/pando/values.schema.json"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	want := object()
	for _, k := range config.Keys() {
		if slices.Contains(chartOwns, k.Path) {
			continue
		}
		at := want
		names := strings.Split(k.Path, ".")
		for _, name := range names[:len(names)-1] {
			props := at["properties"].(map[string]any)
			if list, ok := strings.CutSuffix(name, "[]"); ok {
				at = props[list].(map[string]any)["items"].(map[string]any)
				continue
			}
			if props[name] == nil {
				props[name] = object()
			}
			at = props[name].(map[string]any)
		}
		at["properties"].(map[string]any)[names[len(names)-1]] = schemaOf(k)
	}
	have := schema["properties"].(map[string]any)
	if *update {
		have["config"] = want
		data, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, have["config"]); diff != "" {
		t.Errorf("the chart's schema is not what the code says: run go test ./internal/archtest -run ChartSchema -update\n%s", diff)
	}
}

func object() map[string]any {
	return map[string]any{"type": "object", "properties": map[string]any{}, "additionalProperties": false}
}

func schemaOf(k config.Key) any {
	text := map[string]any{"type": "string"}
	switch {
	case slices.ContainsFunc(config.Keys(), func(e config.Key) bool { return strings.HasPrefix(e.Path, k.Path+"[].") }): // a list of sections
		return map[string]any{"type": "array", "items": object()}
	case k.Type == "list":
		return map[string]any{"type": "array", "items": text}
	case k.Type == "map":
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "array", "items": text}}
	case k.Type == "number":
		return map[string]any{"type": "integer"}
	case k.Type == "bool":
		return map[string]any{"type": "boolean"}
	}
	return text
}
