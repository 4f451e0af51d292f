package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// run runs one command and returns what it printed and its error.
func run(t *testing.T, environ []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	err = Run(t.Context(), t.Context(), Env{
		Args:    args,
		Environ: environ,
		Stdout:  &out,
		Stderr:  &errOut,
	})
	return out.String(), errOut.String(), err
}

// configFile writes a file of its own and returns its path.
func configFile(t *testing.T, doc string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pando.yaml")
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
