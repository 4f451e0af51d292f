package demo_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/demo"
)

// The tour holds, on any free port, and says what it promises.
func TestTour(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var out bytes.Buffer
	if err := demo.Run(ctx, demo.Options{Listen: freePort(t), Out: &out}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Logf("the tour:\n%s", out.String())
	for _, want := range []string{"pando-0", "pando-1", "pando-2", "TLS verified", "queries", "drained under load", "killed under load", "Every step held", "curl --cacert"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tour does not say %q", want)
		}
	}
}

func TestTakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = demo.Run(t.Context(), demo.Options{Listen: ln.Addr().String(), Out: new(bytes.Buffer)})
	if err == nil || !strings.Contains(err.Error(), "is in use; stop what uses it") || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("err = %v, want what is wrong and what would help", err)
	}
}

func freePort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
