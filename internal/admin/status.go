package admin

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// defaultFlows is how many flows a status shows unless ?flows=N says otherwise.
const defaultFlows = 100

// status answers with JSON, or with a page for a browser.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	flows := defaultFlows
	if v := r.URL.Query().Get("flows"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			http.Error(w, "invalid flows "+strconv.Quote(v)+": write how many flows to show", http.StatusBadRequest)
			return
		}
		flows = n
	}
	st := s.Status(flows)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		writePage(w, st)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(st)
}
