package explain

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"

	"github.com/pandoproxy/pando/internal/status"
)

// maxRequest bounds the body of a request, in bytes, the CA included.
const maxRequest = 1 << 20

// ServeHTTP answers a status.ExplainRequest in JSON with a status.Explanation.
// The admin port passes only requests of processes in the replica's own network
// namespace: a request may stand for any client, and its answer says what that client
// may reach. ServeHTTP insists on JSON so that no page in a browser can send a request.
func (e *Explainer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
		http.Error(w, "the request must be JSON: send Content-Type: application/json", http.StatusUnsupportedMediaType)
		return
	}
	var q status.ExplainRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		http.Error(w, fmt.Sprintf("cannot read the request: %v", err), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(e.Explain(r.Context(), q))
}
