package admin

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestPanicOfAHandler checks that a panic becomes status 500 and is reported, with the
// panics of what the handler asks for.
func TestPanicOfAHandler(t *testing.T) {
	var reported []error
	s := &Server{Panicked: func(err error) { reported = append(reported, err) }}
	h := s.guarded(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var err error
		func() {
			defer flow.CatchIn(r.Context(), &err)
			panic("boom below")
		}()
		panic("boom")
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("status %d, want 500", w.Code)
	}
	if len(reported) != 2 || !flow.IsPanic(reported[0]) || !flow.IsPanic(reported[1]) {
		t.Errorf("reported %v, want two panics", reported)
	}
	(&Server{}).guarded(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}
