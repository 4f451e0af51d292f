package httpproxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/reply"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// failingRoad fails every request with err.
type failingRoad struct{ err error }

func (r failingRoad) Connect(context.Context, *flow.Record) (net.Conn, error) { return nil, r.err }

func (r failingRoad) Serving(*flow.Record, func(error))                          {}
func (r failingRoad) Judge(context.Context, *flow.Record) ([]flow.Target, error) { return nil, r.err }

func (r failingRoad) Dial(context.Context, *flow.Record, []flow.Target) (net.Conn, error) {
	return nil, r.err
}

func (r failingRoad) Tunnel(*flow.Record, flow.Pair) {}

func (r failingRoad) Finish(*flow.Record) {}

// statusLine sends request to a proxy whose road is r, over TCP, and returns the
// first line of the answer, as a client reads it that knows nothing of HTTP.
func statusLine(t *testing.T, r Road, request string) string {
	t.Helper()
	c, server := testkit.TCPPair(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&Proxy{Road: r}).Serve(context.Background(), server)
	}()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-ended
	return strings.TrimSuffix(line, "\r\n")
}

// TestReasonPhrases checks that the status line alone says what failed, since
// wget, git, Java and Python print nothing else of a failed CONNECT.
func TestReasonPhrases(t *testing.T) {
	const connect = "CONNECT api.corp.example:443 HTTP/1.1\r\nHost: api.corp.example:443\r\n\r\n"
	const plain = "GET http://api.corp.example/ HTTP/1.1\r\nHost: api.corp.example\r\nConnection: close\r\n\r\n"
	want := map[flow.Class]string{
		flow.Internal:        "500 Pando failed",
		flow.BadRequest:      "400 Request not valid for Pando",
		flow.Unauthenticated: "407 Password required by Pando",
		flow.Denied:          "403 Denied by Pando policy",
		flow.NotFound:        "502 Name not found by Pando",
		flow.ResolveFailed:   "502 Name not resolved by Pando: no resolver answered",
		flow.NoRoute:         "502 No route from Pando to the target",
		flow.Refused:         "502 Target refused the connection from Pando",
		flow.Unreachable:     "502 Target not reachable from Pando",
		flow.Timeout:         "504 Target did not answer Pando in time",
		flow.Reset:           "502 Target closed the connection from Pando",
		flow.BadResponse:     "502 Target sent Pando an invalid answer",
		flow.BadCertificate:  "502 Target's certificate is not trusted by Pando",
		flow.Idle:            "504 Connection through Pando was idle for too long",
		flow.Overloaded:      "503 Pando is at its connection limit",
		flow.NotReady:        "503 Pando is not ready",
		flow.Cut:             "503 Pando is shutting down",
		flow.Canceled:        "500 Pando failed",
		flow.Loop:            "502 Request came back to Pando",
	}
	for _, class := range flow.Classes() {
		if class == flow.OK {
			continue
		}
		t.Run(class.String(), func(t *testing.T) {
			road := failingRoad{&flow.Error{Class: class, Op: "test"}}
			for name, request := range map[string]string{"CONNECT": connect, "plain HTTP": plain} {
				if got := statusLine(t, road, request); got != "HTTP/1.1 "+want[class] {
					t.Errorf("%s: status line = %q, want %q", name, got, "HTTP/1.1 "+want[class])
				}
			}
		})
	}
}

// TestReasonsAreValid checks that every reason phrase may be sent (RFC 9112
// section 4), names Pando, and is not longer than a client prints.
func TestReasonsAreValid(t *testing.T) {
	valid := regexp.MustCompile(`^[ -~]{1,60}$`)
	for _, class := range flow.Classes() {
		reason := reply.StatusFor(class).Reason
		if !valid.MatchString(reason) {
			t.Errorf("class %v: reason %q, want 1 to 60 characters of printable ASCII", class, reason)
		}
		if class != flow.OK && !strings.Contains(reason, "Pando") {
			t.Errorf("class %v: reason %q, want one that names Pando", class, reason)
		}
	}
}

// TestReasonOfOtherCodes checks that a status code that is more exact than the
// class's has the phrase of its own.
func TestReasonOfOtherCodes(t *testing.T) {
	const code = http.StatusRequestHeaderFieldsTooLarge
	long := "GET http://api.corp.example/ HTTP/1.1\r\nHost: api.corp.example\r\nX: " + strings.Repeat("x", DefaultMaxHeaderBytes) + "\r\n\r\n"
	want := "HTTP/1.1 " + strconv.Itoa(code) + " Request Header Fields Too Large"
	if got := statusLine(t, failingRoad{}, long); got != want {
		t.Errorf("status line = %q, want %q", got, want)
	}
}
