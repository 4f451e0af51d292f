//go:build e2e

package e2e

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The names that the documentation uses, and what they are called here.
const (
	docsAPI       = "api.internal.example.com"
	docsImage     = "registry.example.com/pando"
	docsKey       = "tskey-auth-XXXX"
	docsNamespace = "pando"
)

func docsPage(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile("../" + page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// runDocs runs one command of the documentation in namespace ns and returns what
// it printed. more are arguments that only this lab needs.
func runDocs(t *testing.T, line, ns, key string, more ...string) string {
	t.Helper()
	line = strings.NewReplacer(
		"-n "+docsNamespace+" ", "-n "+ns+" ",
		"namespace "+docsNamespace, "namespace "+ns,
		"/namespaces/"+docsNamespace+"/", "/namespaces/"+ns+"/",
		"pando."+docsNamespace+":", "pando."+ns+":",
		docsImage, "lab.invalid/pando",
		"image.tag=0.1.0", "image.tag=e2e",
		docsKey, key,
		docsAPI, apiName,
		"NAMESPACE", clientNS, // where the pods ask
		"charts/pando", env("E2E_CHART", "../charts/pando"),
		`"`, "",
	).Replace(line)
	args := append(strings.Fields(line), more...)
	shown := strings.Join(args, " ")
	if key != "" {
		shown = strings.ReplaceAll(shown, key, "KEY")
	}
	t.Logf("$ %s", shown)
	switch args[0] {
	case "kubectl":
		if slices.Contains(args, "port-forward") {
			return forwarded(t, args[1:])
		}
		return kubectl(t, args[1:]...)
	case "helm":
		return helm(t, args[1:]...)
	}
	t.Fatalf("the documentation runs %s, which this test does not know", args[0])
	return ""
}

// forwarded runs kubectl port-forward, and returns the page /status that it leads to:
// such a connection comes from the pod itself.
func forwarded(t *testing.T, args []string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), env("KUBECTL", "kubectl"), args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("kubectl %s ended: %v", strings.Join(args, " "), err)
	}
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	resp, err := http.Get("http://" + address + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("/status through %q: status %d, %v: %s", line, resp.StatusCode, err, page)
	}
	return string(page)
}

// runReads runs every command of the pages that reads something, as it stands
// there.
func runReads(t *testing.T, ns string) {
	n := 0
	for _, c := range docsCommands(t) {
		if reads(c) {
			runDocs(t, c.Line, ns, "")
			n++
		}
	}
	if n < 15 {
		t.Errorf("found only %d commands in the documentation: the test looks for the wrong thing", n)
	}
}

// docsManifests checks the manifests of the documentation against the cluster's
// API, without creating them.
func docsManifests(t *testing.T, ns string) {
	manifest := regexp.MustCompile("(?ms)^```yaml\n# a manifest\n(.*?)^```$")
	n := 0
	for _, m := range manifest.FindAllStringSubmatch(docsPage(t, "docs/kubernetes.md"), -1) {
		text := strings.ReplaceAll(m[1], "namespace: "+docsNamespace, "namespace: "+ns)
		file := t.TempDir() + "/manifest.yaml"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Log(kubectl(t, "apply", "--dry-run=server", "-f", file))
		n++
	}
	if n < 2 {
		t.Errorf("found only %d manifests in docs/kubernetes.md", n)
	}
}

// installByDocs installs a fleet with the commands of docs/kubernetes.md, and
// returns the chart's notes. The namespace is there already, with its labels.
func installByDocs(t *testing.T, ns, key, values string) (notes string) {
	t.Helper()
	for _, line := range sectionInstall.commands(t) {
		switch {
		case strings.HasPrefix(line, "kubectl create namespace"):
		case strings.HasPrefix(line, "helm "):
			notes = runDocs(t, line, ns, key, "--timeout", "120s", "-f", values)
		default:
			runDocs(t, line, ns, key)
		}
	}
	return notes
}

// removeByDocs scales a fleet, upgrades it, takes the upgrade back, and removes the
// fleet, with the commands of the documentation. Nothing of it may be left.
func removeByDocs(t *testing.T, ns string) {
	for _, s := range []section{sectionScale, sectionUpgrade, sectionRemove} {
		for _, line := range s.commands(t) {
			runDocs(t, line, ns, "")
		}
	}
	if out, err := tryKubectl(t, "get", "namespace", ns); err == nil {
		t.Errorf("the namespace is still there:\n%s", out)
	}
}
