//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// aliasRule is the policy of the chart's fleet in this test: a rule by name. It
// goes into the chart's config.
const aliasRule = `  policy: {rules: [{name: no-secrets, names: ["*.secret.internal.cloudprovider.io"], action: deny}]}
`

// externalName checks that a rule by name holds for an alias, which whoever may
// make a Service can make: the cluster's own DNS answers for an ExternalName
// Service with a CNAME. An alias of an allowed name works.
func externalName(t *testing.T, proxy string) {
	service := func(name, target string) {
		applyText(t, []byte("apiVersion: v1\nkind: Service\nmetadata: {name: "+name+", namespace: "+clientNS+"}\nspec: {type: ExternalName, externalName: "+target+"}\n"))
	}
	service("alias", apiName)
	service("alias-denied", "db.secret.internal.cloudprovider.io")
	for _, suffix := range []string{"", ".svc", ".svc.cluster.local", ".svc.cluster.local."} {
		for name, denied := range map[string]bool{"alias": false, "ALIAS": false, "alias-denied": true, "Alias-Denied": true} {
			url := "http://" + name + "." + clientNS + suffix + "/"
			out, err := client(t, "get", "-proxy", proxy, "-url", url)
			if err != nil {
				out = err.Error()
			}
			if strings.Contains(out, "no-secrets") != denied || strings.Contains(out, `"service":"private-api"`) == denied {
				t.Errorf("%s through %s: %s, want a denial by no-secrets: %v", url, proxy, out, denied)
			}
		}
	}
}
