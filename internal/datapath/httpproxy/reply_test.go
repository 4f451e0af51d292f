package httpproxy

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/reply"
	"github.com/pandoproxy/pando/internal/flow"
)

// TestStatusFor checks the table, which is the contract with clients. Error types
// are those of RFC 9209 section 2.3.
func TestStatusFor(t *testing.T) {
	type wanted struct {
		code      int
		errorType string
	}
	replies := map[flow.Class]wanted{
		flow.OK:              {200, ""},
		flow.Internal:        {500, "proxy_internal_error"},
		flow.BadRequest:      {400, "http_request_error"},
		flow.Unauthenticated: {407, "http_request_denied"},
		flow.Denied:          {403, "http_request_denied"},
		flow.NotFound:        {502, "dns_error"},
		flow.ResolveFailed:   {502, "dns_error"},
		flow.NoRoute:         {502, "destination_ip_unroutable"},
		flow.Refused:         {502, "connection_refused"},
		flow.Unreachable:     {502, "destination_unavailable"},
		flow.Timeout:         {504, "connection_timeout"},
		flow.Reset:           {502, "connection_terminated"},
		flow.BadResponse:     {502, "http_protocol_error"},
		flow.BadCertificate:  {502, "tls_certificate_error"},
		flow.Idle:            {504, "connection_read_timeout"},
		flow.Overloaded:      {503, "connection_limit_reached"},
		flow.NotReady:        {503, "destination_unavailable"},
		flow.Cut:             {503, "connection_terminated"},
		flow.Canceled:        {500, "proxy_internal_error"}, // the client has left and does not read it
		flow.Loop:            {502, "proxy_loop_detected"},
	}
	for _, class := range flow.Classes() {
		t.Run(class.String(), func(t *testing.T) {
			want, ok := replies[class]
			if !ok {
				t.Fatalf("class %v has no status in this table; choose one", class)
			}
			if st := reply.StatusFor(class); st.Code != want.code || st.Error != want.errorType {
				t.Errorf("reply.StatusFor(%v) = %d, %q; want %d, %q", class, st.Code, st.Error, want.code, want.errorType)
			}
			if reply.StatusFor(class).Text == "" {
				t.Errorf("reply.StatusFor(%v).text is empty, want words for people", class)
			}
		})
	}
}

// TestStatusIsDocumented checks the column HTTP of the table of classes in
// docs/troubleshooting.md.
func TestStatusIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range flow.Classes() {
		if class == flow.Canceled { // the client has left: it gets no answer
			continue
		}
		row := fmt.Sprintf("\n| `%v` | %d", class, reply.StatusFor(class).Code)
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/troubleshooting.md lacks the row %q", strings.TrimSpace(row))
		}
	}
}
