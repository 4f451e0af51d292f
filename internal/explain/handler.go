package explain

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
)

// maxRequest bounds a request, the CA included.
const maxRequest = 1 << 20

// ServeHTTP answers a Request in JSON with a Report. It takes requests from this
// host's loopback alone, where kubectl exec and kubectl port-forward come from:
// whoever asks stands for whatever client it says, and learns what that client
// may reach. JSON is insisted upon so that no page in a browser can ask.
func (e *Explainer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		http.Error(w, "only from the replica's own loopback: use kubectl exec or kubectl port-forward", http.StatusForbidden)
		return
	}
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
		http.Error(w, "the request is JSON: Content-Type: application/json", http.StatusUnsupportedMediaType)
		return
	}
	var q Request
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		http.Error(w, fmt.Sprintf("the request can't be read: %v", err), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(e.Explain(r.Context(), q))
}
