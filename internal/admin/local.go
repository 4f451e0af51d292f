package admin

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/pandoproxy/pando/internal/socket"
)

// localWriteTime replaces writeTime for what only local clients get. An explanation
// takes up to a minute. Package pprof sets a time of its own.
const localWriteTime = 2 * time.Minute

// notLocal is the answer for clients that are not local.
const notLocal = "only processes of the replica's own pod can read this: run 'kubectl exec POD -- /pando status' or " +
	"'kubectl exec POD -- /pando explain', or run 'kubectl port-forward POD 9002' and open http://127.0.0.1:9002/"

// local is h for processes of the replica's own network namespace, and 403 for all
// others. kubectl exec runs such a process. kubectl port-forward connects from one,
// too: the container runtime enters the pod's namespace and connects to its loopback.
// A tailnet peer that is forwarded to the loopback is not local.
func local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !socket.IsLocal(from.Addr().Unmap()) {
			http.Error(w, notLocal, http.StatusForbidden)
			return
		}
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(localWriteTime))
		h.ServeHTTP(w, r)
	})
}
