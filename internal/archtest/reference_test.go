package archtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pandoproxy/pando/internal/configdoc"
)

// TestReferenceIsFresh checks rule 6: the reference page of the configuration, the
// help of the flags and the chart's schema say what the code says. (That every bad
// configuration fails with its words is a test of package config.)
func TestReferenceIsFresh(t *testing.T) {
	root := filepath.Join("..", "..")
	files, err := configdoc.Files(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		have, err := os.ReadFile(filepath.Join(root, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(f.Data), string(have)); diff != "" {
			t.Errorf("%s is stale; run: make docs\n%s", f.Path, diff)
		}
	}
}
