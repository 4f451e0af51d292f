package admin

import (
	"net/http"

	"github.com/pandoproxy/pando/internal/flow"
)

// guarded is h, and survives a panic: the request is answered with 500 if there is
// no answer yet. Panics in what h asks for are reported, too.
func (s *Server) guarded(h http.Handler) http.Handler {
	panicked := s.Panicked
	if panicked == nil {
		panicked = func(error) {}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer flow.CatchTo(func(err error) {
			panicked(err)
			http.Error(w, "the replica has failed; its log shows where", http.StatusInternalServerError)
		})
		h.ServeHTTP(w, r.WithContext(flow.WithPanics(r.Context(), panicked)))
	})
}
