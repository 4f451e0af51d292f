package explain

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whoever asks learns what any client may reach, so only this host may.
func TestOnlyFromLoopback(t *testing.T) {
	for remote, want := range map[string]int{
		"10.244.1.7:4000": 403, "[fd00::7]:4000": 403, "[::ffff:10.244.1.7]:4000": 403, "garbage": 403,
		"127.0.0.1:4000": 400, "[::1]:4000": 400, "[::ffff:127.0.0.1]:4000": 400, // let in, with a body that is none
	} {
		r := httptest.NewRequest(http.MethodPost, "/explain", strings.NewReader("x"))
		r.RemoteAddr = remote
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		w := httptest.NewRecorder()
		new(Explainer).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("from %s: %d, want %d", remote, w.Code, want)
		}
	}
}
