//go:build clients && linux

package clients

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

// screenshot is the picture that docs/clients.md shows.
const screenshot = "../docs/clients.png"

// browse returns a command that loads a page in Chromium and prints what becomes of it.
func browse(s *site, p proxy, page string, more ...string) command {
	scheme := p.scheme
	if scheme != "http" {
		scheme = "socks5" // Chromium sends the name along
	}
	args := []string{"chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable", "--user-data-dir=" + filepath.Join(s.dir, "chromium"), "--proxy-server=" + scheme + "://" + p.addr, "--timeout=60000"}
	return cmd(append(append(args, more...), page)...)
}

// chromium is the client Chromium. Its pages get three answers in a script.
func chromium() client {
	return client{
		name:    "Chromium",
		setting: "`--proxy-server=http://…`, or `socks5://…`",
		needs:   []string{"chromium", "certutil"},
		version: []string{"chromium", "--version"},
		fetch: func(s *site, p proxy, urls ...string) command {
			u, err := url.Parse(urls[0])
			if err != nil {
				panic(err)
			}
			u.Path = "/page/small"
			return browse(s, p, u.String(), "--dump-dom")
		},
		bulk: func(t *testing.T, s *site, p proxy) (string, error) {
			r := s.run(t, p, browse(s, p, "https://"+shop+"/page/large", "--dump-dom"))
			if !bytes.Contains(r.got, []byte("all 10485760 bytes came back")) {
				return "", fmt.Errorf("%v: %s", r.err, r.said)
			}
			return "yes", nil
		},
		socks: "socks5h",
	}
}

// trustCA has Chromium trust the origin's authority.
func (s *site) trustCA(t *testing.T) {
	t.Helper()
	db := filepath.Join(s.dir, ".pki", "nssdb")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"certutil", "-d", "sql:" + db, "-N", "--empty-password"},
		{"certutil", "-d", "sql:" + db, "-A", "-t", "C,,", "-n", "pando", "-i", s.ca},
	} {
		if r := s.runIn(t, s.dir, proxy{"http", s.proxy}, cmd(args...)); r.err != nil {
			t.Fatalf("%v: %v: %s", args, r.err, r.said)
		}
	}
}

// takeScreenshot has Chromium take a picture of what a person sees: the page behind the
// tailnet, through the proxy.
func (s *site) takeScreenshot(t *testing.T) {
	t.Helper()
	p := proxy{"http", s.proxy}
	r := s.run(t, p, browse(s, p, "https://"+shop+"/page/small", "--window-size=800,400", "--screenshot="+absolute(screenshot)))
	if _, err := os.Stat(screenshot); err != nil {
		t.Errorf("no screenshot: %v, %v: %s", err, r.err, r.said)
	}
}
