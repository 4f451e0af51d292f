package explain

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/netip"

	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/status"
)

// maxRequest bounds the body of a request, in bytes, the CA included.
const maxRequest = 1 << 20

// ServeHTTP answers a status.ExplainRequest in JSON with a status.Explanation.
// It accepts requests only from this host's loopback, which is where kubectl
// exec and kubectl port-forward come from: a request may stand for any client,
// and its answer says what that client may reach. It insists on JSON so that no
// page in a browser can send a request.
func (e *Explainer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !socket.IsLocal(from.Addr().Unmap()) {
		http.Error(w, "explain answers only on the replica's own loopback: use kubectl exec or kubectl port-forward", http.StatusForbidden)
		return
	}
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
