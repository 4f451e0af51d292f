package gateway_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// curl runs Debian's curl and returns what it wrote. Its own environment knows
// no proxy.
func (w *world) curl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.tryCurl(t, args...)
	if err != nil {
		const most = 2000 // bytes of a page, and of the log
		log := ""
		if w.replica != nil {
			log = w.flows.text()
		}
		t.Fatalf("curl %q: %v; the end of %d bytes:\n%s\nand of the replica's log:\n%s", args, err, len(out), out[max(0, len(out)-most):], log[max(0, len(log)-most):])
	}
	return out
}

func (w *world) tryCurl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path := "/usr/bin/curl" // PATH is empty in kernel mode's namespace
	if _, err := os.Stat(path); err != nil {
		path, err = exec.LookPath("curl")
		if err != nil {
			t.Fatal("curl is not installed: apt-get install curl")
		}
	}
	cmd := exec.CommandContext(testkit.Within(t, 2*time.Minute), path, append([]string{"-sS", "--max-time", "100", "--cacert", w.ca()}, args...)...)
	cmd.Env = []string{"HOME=" + w.dir}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestCurlAbsoluteForm(t *testing.T) { userspace(t, sharedGateway, curlAbsoluteForm) }

func curlAbsoluteForm(t *testing.T, w *world) {
	out := w.curl(t, "-x", "http://"+w.addr, "http://"+testnet.APIName+"/v1?a=b%20c")
	if !strings.Contains(out, `"path":"/v1"`) || !strings.Contains(out, `"host":"`+testnet.APIName+`"`) {
		t.Errorf("the API answered %s, want the path and the host of the request", out)
	}
}

// bigFile is several times what the buffers on its way hold before they grow, so
// it has to be streamed.
func bigFile(t *testing.T, w *world) (path string, data []byte) {
	data = bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	path = filepath.Join(w.dir, "big")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func TestCurlUpload(t *testing.T) { eachMode(t, sharedGateway, curlUpload) }

func curlUpload(t *testing.T, w *world) {
	path, data := bigFile(t, w)
	for _, args := range [][]string{
		{"-x", "http://" + w.addr, "-T", path},
		{"-x", "http://" + w.addr, "-T", path, "-H", "Transfer-Encoding: chunked"},
		{"-x", "http://" + w.addr, "-p", "-T", path},
		{"-x", "socks5h://" + w.addr, "-T", path},
	} {
		out := w.curl(t, append(args, "http://"+w.origin.host+"/duplex")...)
		if out != string(data) {
			t.Errorf("curl %v: %d bytes came back, want %d", args, len(out), len(data))
		}
	}
}

func TestCurlContinue(t *testing.T) { userspace(t, sharedGateway, curlContinue) }

func curlContinue(t *testing.T, w *world) {
	path, data := bigFile(t, w)
	out := w.curl(t, "-v", "-o", "/dev/null", "-x", "http://"+w.addr, "-H", "Expect: 100-continue", "--expect100-timeout", "60", "--data-binary", "@"+path, "http://"+w.origin.host+"/duplex")
	if !strings.Contains(out, "< HTTP/1.1 100 Continue") || !strings.Contains(out, "< HTTP/1.1 200") {
		t.Errorf("curl saw no 100 and 200 (%d bytes were to be sent):\n%s", len(data), out)
	}
	// When an origin refuses, its answer comes before the body is sent.
	out = w.curl(t, "-v", "-o", "/dev/null", "-w", "sent %{size_upload} bytes", "-x", "http://"+w.addr, "-H", "Expect: 100-continue", "--expect100-timeout", "60", "--data-binary", "@"+path, "http://"+w.origin.host+"/early")
	if !strings.Contains(out, "< HTTP/1.1 413") || !strings.Contains(out, "sent 0 bytes") {
		t.Errorf("an origin that refuses: curl got\n%s\nwant 413 and 0 bytes sent", out)
	}
}

func TestCurlHead204And304(t *testing.T) { userspace(t, sharedGateway, curlBodiless) }

func curlBodiless(t *testing.T, w *world) {
	for path, want := range map[string]string{"/echo": "200", "/status/204": "204", "/status/304": "304"} {
		args := []string{"-i", "-x", "http://" + w.addr, "http://" + w.origin.host + path}
		if path == "/echo" {
			args = append([]string{"-I"}, args...)
		}
		if out := w.curl(t, args...); !strings.Contains(out, "HTTP/1.1 "+want) {
			t.Errorf("%s: got\n%s\nwant %s", path, out, want)
		}
	}
}

func TestCurlHTTP10(t *testing.T) { userspace(t, sharedGateway, curlHTTP10) }

func curlHTTP10(t *testing.T, w *world) {
	out := w.curl(t, "-0", "-i", "-x", "http://"+w.addr, "http://"+w.origin.host+"/stream")
	if !strings.HasSuffix(out, "tick 0\ntick 1\ntick 2\n") || strings.Contains(out, "Transfer-Encoding") {
		t.Errorf("an HTTP/1.0 client got:\n%s", out)
	}
	c := w.raw(t)
	for range 2 { // kept alive on request
		fmt.Fprintf(c, "GET http://%s/echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", w.origin.host)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Connection") != "keep-alive" {
			t.Fatalf("got %v, %v; want 200 and Connection: keep-alive", resp, err)
		}
	}
}
