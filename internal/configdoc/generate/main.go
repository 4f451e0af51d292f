// Command generate writes the files of package configdoc. Run it from the root of
// the repository: make docs.
package main

import (
	"fmt"
	"os"

	"github.com/pandoproxy/pando/internal/configdoc"
)

func main() {
	files, err := configdoc.Files(".")
	for _, f := range files {
		if err == nil {
			err = os.WriteFile(f.Path, f.Data, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make docs:", err)
		os.Exit(1)
	}
}
