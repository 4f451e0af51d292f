package differential

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// peer is another proxy, in the order of the table's columns.
type peer struct {
	name  string
	start func(t *testing.T, dir string, port int, origin netip.AddrPort) *exec.Cmd
}

var peers = []peer{
	{"squid", func(t *testing.T, dir string, port int, _ netip.AddrPort) *exec.Cmd {
		conf := configure(t, dir, "squid.conf", fmt.Sprintf("http_port 127.0.0.1:%d\nhttp_access allow all\ncache deny all\nmemory_cache_shared off\naccess_log none\npid_filename none\ncache_log /dev/null\ncoredump_dir none\nshutdown_lifetime 1 seconds\nserver_persistent_connections off\n", port))
		return exec.Command("/usr/sbin/squid", "-N", "-n", fmt.Sprint("pando", port), "-f", conf)
	}},
	{"haproxy", func(t *testing.T, dir string, port int, origin netip.AddrPort) *exec.Cmd {
		conf := configure(t, dir, "haproxy.cfg", fmt.Sprintf("defaults\n mode http\n timeout connect 2s\n timeout client 3s\n timeout server 3s\nfrontend f\n bind 127.0.0.1:%d\n default_backend b\nbackend b\n http-reuse never\n server s %s\n", port, origin))
		return exec.Command("/usr/sbin/haproxy", "-db", "-f", conf)
	}},
	{"tinyproxy", func(t *testing.T, dir string, port int, _ netip.AddrPort) *exec.Cmd {
		conf := configure(t, dir, "tinyproxy.conf", fmt.Sprintf("Port %d\nListen 127.0.0.1\nTimeout 3\nMaxClients 200\nLogFile \"%s/log\"\nPidFile \"%s/pid\"\n", port, dir, dir))
		return exec.Command("/usr/bin/tinyproxy", "-d", "-c", conf)
	}},
}

func configure(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// run sends one raw message after the other through the proxy to an origin that gives
// answers, and returns what it did with each.
func (p peer) run(t *testing.T, cases map[string]string, of func(o *recorder, raw string) (send string, result func(answer string) outcome)) results {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	o := newRecorder(t, "")
	dir := t.TempDir()
	cmd := p.start(t, dir, port, o.addr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(os.Interrupt) // squid removes its shared memory
		kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
	}()
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	dial := func() *net.TCPConn {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return nil
		}
		return c.(*net.TCPConn)
	}
	testkit.Eventually(t, p.name+" to listen", func() bool {
		c := dial()
		if c != nil {
			c.Close()
		}
		return c != nil
	})
	out := results{}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		o.mu.Lock()
		o.seen = nil
		o.mu.Unlock()
		send, result := of(o, cases[name])
		c := dial()
		if c == nil {
			t.Fatalf("%s: %s does not answer any more", name, p.name)
		}
		out[name] = result(speak(c, fill(send, o.addr)))
		c.Close()
	}
	return out
}

// TestPeers writes the table: what each proxy does with each case.
func TestPeers(t *testing.T) {
	if !*update {
		t.Skip("not part of make test, which compares Pando with the table: make differential runs the other proxies and writes it")
	}
	for _, p := range peers {
		if _, err := exec.LookPath(p.name); err != nil {
			if _, err := os.Stat("/usr/sbin/" + p.name); err != nil {
				t.Skipf("SKIPPED, NOT TESTED: %s is not installed; run make differential as root on Debian", p.name)
			}
		}
	}
	requests := corpus(t, "requests", 150)
	responses := corpus(t, "responses", 60)
	columns := map[string][]results{}
	ours, ourResponses := pando(t)
	columns["Requests"] = []results{ours}
	columns["Responses"] = []results{ourResponses}
	others := make([][2]results, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() {
			others[i][0] = p.run(t, requests, func(o *recorder, raw string) (string, func(string) outcome) {
				return raw, func(answer string) outcome { return ofRequest(o, answer) }
			})
			others[i][1] = p.run(t, responses, func(o *recorder, raw string) (string, func(string) outcome) {
				o.setAnswer(raw)
				return probe, ofResponse
			})
		})
	}
	all.Wait()
	for _, o := range others {
		columns["Requests"] = append(columns["Requests"], o[0])
		columns["Responses"] = append(columns["Responses"], o[1])
	}
	writeTable(t, columns)
}

func (o *recorder) setAnswer(raw string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = raw
}

const tableHead = `# What four proxies do with unusual HTTP

This page is generated: run ` + "`make differential`" + `. The cases are the files in the folders requests and
responses. {origin} and {port} stand for the origin's address and port. For a request that was passed
on, the cell shows what the origin has read. For a response, it shows what the client has read. The
other proxies are those of Debian 12: squid 5.7, haproxy 2.6 (with one fixed server) and tinyproxy
1.11. Where Pando passes on what another proxy refuses, the last column says why that is right.
`

// writeTable writes the table with its reasons.
func writeTable(t *testing.T, columns map[string][]results) {
	t.Helper()
	reasons := readReasons(t)
	var b strings.Builder
	b.WriteString(tableHead)
	for _, part := range []string{"Requests", "Responses"} {
		fmt.Fprintf(&b, "\n## %s\n\n| case | Pando | squid | haproxy | tinyproxy | why Pando passes it on |\n|---|---|---|---|---|---|\n", part)
		all := columns[part]
		for _, name := range slices.Sorted(maps.Keys(all[0])) {
			fmt.Fprintf(&b, "| %s |", name)
			for _, column := range all {
				b.WriteString(" " + column[name].text + " |")
			}
			b.WriteString(strings.TrimRight(" "+reasons[strings.ToLower(part)+"/"+name], " ") + " |\n")
		}
	}
	if err := os.WriteFile(tableFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
