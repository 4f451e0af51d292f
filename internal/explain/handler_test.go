package explain

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// post sends body to e as contentType and returns the answer.
func post(e *Explainer, contentType, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/explain", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	return w
}

// TestRequests checks which bodies are requests.
func TestRequests(t *testing.T) {
	for _, tc := range []struct {
		name, contentType, body string
		code                    int
		want                    string // of the answer
	}{
		{"form_of_a_page_in_a_browser", "text/plain", "{}", http.StatusUnsupportedMediaType, "the request must be JSON"},
		{"no_content_type", "", "{}", http.StatusUnsupportedMediaType, "the request must be JSON"},
		{"cut_short", "application/json", "{", http.StatusBadRequest, "cannot read the request"},
		{"unknown_field", "application/json", `{"url": "x"}`, http.StatusBadRequest, `unknown field "url"`},
		{"too_large", "application/json", `{"ca": "` + strings.Repeat("x", maxRequest) + `"}`, http.StatusBadRequest, "too large"},
		{"valid", "application/json", `{"target": "db:5432"}`, http.StatusOK, `"class": "refused"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := explainer(func(*flow.Record, *datapath.Trace) (net.Conn, error) {
				return nil, &flow.Error{Class: flow.Refused, Op: "dial"}
			})
			w := post(e, tc.contentType, tc.body)
			if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.want) {
				t.Errorf("got %d, %s; want %d, %s", w.Code, w.Body, tc.code, tc.want)
			}
			if w.Code != http.StatusOK {
				return
			}
			var x status.Explanation
			if err := json.Unmarshal(w.Body.Bytes(), &x); err != nil || x.Flow.Target() != "db:5432" {
				t.Errorf("the answer is read as %+v, %v; want the flow to db:5432", x, err)
			}
		})
	}
}
