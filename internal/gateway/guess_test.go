package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestGuesses(t *testing.T) { userspace(t, sharedTailnet, guesses) }

// guesses checks that a client that guesses passwords is refused after a while, by
// both fronts and also with the right password, and that another client is not. The
// file holds a bcrypt hash.
func guesses(t *testing.T, w *world) {
	users := filepath.Join(w.dir, "users")
	if err := os.WriteFile(users, []byte("ann:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Auth.UsersFile = users
	})
	eve := guesser{from: "127.0.0.2", proxy: r.addr}
	if status, body := eve.get(t, "U*U"); status != 200 {
		t.Fatalf("the right password before the guesses: %d %s, want 200", status, body)
	}
	var body string
	testkit.Eventually(t, "the guesser to be refused over HTTP", func() bool {
		eve.guess(t)
		var status int
		status, body = eve.get(t, "U*U")
		return status == 503
	})
	if !strings.Contains(body, "too many wrong passwords from your address: try again in ") {
		t.Errorf("the guesser reads %q, want what to do", body)
	}
	testkit.Eventually(t, "the guesser to be refused over SOCKS5", func() bool {
		eve.guess(t)
		return eve.socks(t, "U*U") != 0 && r.flows.has("socks5", "overloaded")
	})
	if n := value(t, r, `pando_limit_refusals_total{limit="guesses"}`); n < 2 {
		t.Errorf("refusals because of guesses = %v, want 2 at least", n)
	}
	for _, proxy := range []string{"http://ann:U*U@", "socks5h://ann:U*U@"} {
		if out := w.curl(t, "-x", proxy+r.addr, "http://"+testnet.APIName+"/"); !strings.Contains(out, "private-api") {
			t.Errorf("another client with %s: got %s, want the API's answer", proxy, out)
		}
	}
	checkFlow(t, "the other client", r.flows.findFront(t, "socks5", testnet.APIName), fields{"user": "ann", "class": "ok"})
}

// guesser is a client with an address of its own.
type guesser struct {
	from, proxy string
	made        int // guesses so far
}

func (g *guesser) dialer() *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(g.from)}}
}

// guess gives ten wrong passwords, each for the first time.
func (g *guesser) guess(t *testing.T) {
	t.Helper()
	for range 10 {
		g.made++
		if status, body := g.get(t, fmt.Sprint("guess", g.made)); status != 407 && status != 503 {
			t.Fatalf("a wrong password: %d %s, want 407 or 503", status, body)
		}
	}
}

// get asks for the API with a password of ann.
func (g *guesser) get(t *testing.T, password string) (status int, body string) {
	t.Helper()
	tr := &http.Transport{
		DialContext:       g.dialer().DialContext,
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: g.proxy, User: url.UserPassword("ann", password)}),
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: tr, Timeout: readTime}
	resp, err := client.Get("http://" + testnet.APIName + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// socks gives a password of ann by RFC 1929, and returns the status. After a failure
// it expects the end of the connection.
func (g *guesser) socks(t *testing.T, password string) (status byte) {
	t.Helper()
	c, err := g.dialer().Dial("tcp", g.proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(readTime))
	c.Write([]byte{5, 1, 2})
	expect(t, c, []byte{5, 2})
	c.Write(append(append([]byte{1, 3, 'a', 'n', 'n', byte(len(password))}, password...), 5, 1, 0, 1, 10, 12, 3, 4, 0, 80))
	answer := make([]byte, 2)
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	if answer[1] != 0 {
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Fatalf("after a failed authentication the client reads % x, %v; want the end", rest, err)
		}
	}
	return answer[1]
}
