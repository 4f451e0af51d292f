package reply

import (
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestBodyIsBounded checks that an answer does not repeat the whole of a long host.
func TestBodyIsBounded(t *testing.T) {
	rec := &flow.Record{Request: flow.Request{Host: strings.Repeat("a", 60<<10), Port: 443}}
	body := Body(rec, StatusFor(flow.BadRequest), flow.BadRequest, "check the spelling")
	if len(body) > 512 || !strings.Contains(body, strings.Repeat("a", 255)+"…:443 (bad_request)\n") {
		t.Errorf("the body has %d bytes, want the host cut to 255 bytes in it: %.600q", len(body), body)
	}
}
