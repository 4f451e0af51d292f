//go:build clients && linux

package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// client is a program, and how its user has it use a proxy.
type client struct {
	name    string
	setting string   // how the proxy is set, in Markdown
	needs   []string // programs and files without which it cannot run
	version []string // prints the version
	// fetch gets URLs, one after the other, in one process. send uploads a file. Nil means
	// that the program cannot.
	fetch func(s *site, p proxy, urls ...string) command
	send  func(s *site, p proxy, file, url string) command
	// bulk replaces fetch and send for 10 MiB both ways.
	bulk func(t *testing.T, s *site, p proxy) (string, error)
	// socks is the scheme with which its user has it send names along over SOCKS; empty
	// means that it has no SOCKS.
	socks   string
	tunnel  bool // makes tunnels alone: it has no TLS and no plain HTTP of its own
	onlyTLS bool // has no plain HTTP
	one     bool // gets one URL in a process
	// says finds the line of its output that tells its user what is wrong; nil means that
	// the last one does.
	says *regexp.Regexp
	// faults are the cells that fail through the program's own fault, and why. The cell
	// must fail.
	faults map[string]string
}

// proxy is what a client gets as its proxy.
type proxy struct {
	scheme string // "http", "socks5h", …
	addr   string
}

func (p proxy) String() string { return p.scheme + "://" + p.addr }

func (p proxy) host() string { host, _, _ := net.SplitHostPort(p.addr); return host }
func (p proxy) port() string { _, port, _ := net.SplitHostPort(p.addr); return port }

// command is one run of a program.
type command struct {
	args  []string
	stdin []byte
	env   []string
	out   []string // files in which the program leaves what it got; nil means standard output
}

// cmd returns a command without input.
func cmd(args ...string) command { return command{args: args} }

// result is how a program has ended.
type result struct {
	got    []byte // what it got from the origin
	said   string // the last line that it has printed
	output string // all that it has printed
	err    error
}

// limitTime is how long a program may run. It is there for those that hang.
const limitTime = 3 * time.Minute

// searchPath is where programs are.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// run runs a command in a new directory, with the variables of the proxy.
func (s *site) run(t *testing.T, p proxy, c command) result {
	t.Helper()
	dir, err := os.MkdirTemp(s.dir, "run-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	return s.runIn(t, dir, p, c)
}

// runIn is run in dir.
func (s *site) runIn(t *testing.T, dir string, p proxy, c command) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limitTime)
	defer cancel()
	var stdout, stderr bytes.Buffer
	run := exec.CommandContext(ctx, find(c.args[0]), c.args[1:]...)
	run.Dir = dir
	run.Env = append([]string{"PATH=" + searchPath, "HOME=" + s.dir, "LANG=C.UTF-8", "CA=" + s.ca, "PROXY=" + p.String(),
		"SSL_CERT_FILE=" + s.ca, "NODE_EXTRA_CA_CERTS=" + s.ca, "GIT_SSL_CAINFO=" + s.ca, "GIT_TERMINAL_PROMPT=0",
		"http_proxy=" + p.String(), "https_proxy=" + p.String(), "HTTP_PROXY=" + p.String(), "HTTPS_PROXY=" + p.String()}, c.env...)
	if p.scheme != "http" {
		run.Env = append(run.Env, "ALL_PROXY="+p.String(), "all_proxy="+p.String())
	}
	run.Stdin = bytes.NewReader(c.stdin)
	run.Stdout = &stdout
	run.Stderr = &stderr
	run.WaitDelay = 5 * time.Second
	err := run.Run()
	got := stdout.Bytes()
	if c.out != nil {
		got = nil
	}
	for _, name := range c.out {
		b, _ := os.ReadFile(filepath.Join(dir, name))
		got = append(got, b...)
	}
	said := stderr.String()
	if strings.TrimSpace(said) == "" { // some say it on standard output
		said = stdout.String()
	}
	return result{
		got:    got,
		said:   s.tidy(said, dir, nil),
		output: stderr.String() + "\n" + stdout.String(),
		err:    err,
	}
}

var (
	pointer = regexp.MustCompile(`0x[0-9a-f]{6,}`)
	spaces  = regexp.MustCompile(`\s+`)
	escapes = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")
	clock   = regexp.MustCompile(`\b[0-9]{2}/[0-9]{2} [0-9:]{8}|\b[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+Z?|\bafter \d+ ms|\b[0-9]+ milliseconds`)
)

// mostSaid bounds what the table quotes, in characters.
const mostSaid = 170

// tidy returns the last line of text, or what says finds last, without what differs from
// run to run.
func (s *site) tidy(text, dir string, says *regexp.Regexp) string {
	last := ""
	for line := range strings.Lines(escapes.ReplaceAllString(text, "")) {
		line = strings.TrimSpace(line)
		if says != nil {
			line = says.FindString(line)
		}
		if line != "" {
			last = line
		}
	}
	for _, r := range [][2]string{{s.proxy, "PROXY"}, {dir, "DIR"}, {s.dir, "DIR"}} {
		last = strings.ReplaceAll(last, r[0], r[1])
	}
	_, port, _ := net.SplitHostPort(s.proxy)
	last = strings.ReplaceAll(last, port, "PORT")
	last = pointer.ReplaceAllString(last, "0x…")
	last = clock.ReplaceAllString(last, "…")
	last = strings.TrimSpace(spaces.ReplaceAllString(last, " "))
	if r := []rune(last); len(r) > mostSaid { // the end says why
		last = "…" + string(r[len(r)-mostSaid:])
	}
	return last
}

// find returns the path of a program.
func find(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, dir := range strings.Split(searchPath, ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path
		}
	}
	return name
}

// missingNeed returns what a client needs and does not find; "" if nothing.
func (c *client) missingNeed() string {
	for _, need := range c.needs {
		path := find(need)
		if strings.Contains(need, "*") {
			found, _ := filepath.Glob(need)
			if len(found) == 0 {
				return need
			}
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return need
		}
	}
	return ""
}

// Columns of the table.
const (
	colTLS     = "TLS by CONNECT"
	colPlain   = "plain HTTP"
	colSOCKS   = "SOCKS, names sent along"
	colBulk    = "10 MiB both ways"
	colReuse   = "reuse"
	colDenied  = "denied"
	colUnknown = "unknown name"
	colRefused = "refused"
	colHTTP    = "denied, plain HTTP"
)

var columns = []string{colTLS, colPlain, colSOCKS, colBulk, colReuse}

// failures are the columns of the second table.
var failures = []string{colDenied, colUnknown, colRefused, colHTTP}

// none is the cell of what a program does not have.
const none = "–"

// cell returns what a column says about a client, and an error if it does not work.
func (s *site) cell(t *testing.T, c *client, column string) (string, error) {
	t.Helper()
	by := proxy{"http", s.proxy}
	scheme := "https"
	if c.tunnel {
		scheme = "http" // inside the tunnel
	}
	switch column {
	case colTLS:
		return s.fetches(t, c, by, scheme, "connect")
	case colPlain:
		if c.tunnel || c.onlyTLS {
			return none, nil
		}
		return s.fetches(t, c, by, "http", "http", "connect")
	case colSOCKS:
		if c.socks == "" {
			return none, nil
		}
		front := "socks5"
		if strings.HasPrefix(c.socks, "socks4") {
			front = "socks4"
		}
		return s.fetches(t, c, proxy{c.socks, s.proxy}, scheme, front)
	case colBulk:
		return s.moves(t, c, by, scheme)
	case colReuse:
		return s.reuses(t, c, by)
	case colDenied:
		return s.fails(t, c, by, scheme+"://"+denied+"/small/x", "denied")
	case colUnknown:
		return s.fails(t, c, by, scheme+"://"+missing+"/small/x", "not_found")
	case colRefused:
		return s.fails(t, c, by, scheme+"://"+refused+"/small/x", "refused")
	case colHTTP:
		if c.tunnel || c.onlyTLS {
			return none, nil
		}
		return s.fails(t, c, by, "http://"+denied+"/small/x", "denied")
	}
	return "", errors.New("no such column")
}

// fetches checks that a client gets an answer, by one of some fronts. Its flow has the
// name, so Pando has looked it up.
func (s *site) fetches(t *testing.T, c *client, p proxy, scheme string, fronts ...string) (string, error) {
	t.Helper()
	s.asked.forget()
	before := len(s.served(fronts...))
	r := s.run(t, p, c.fetch(s, p, scheme+"://"+shop+"/small/x"))
	if !bytes.Contains(r.got, []byte("answer")) {
		return "", fmt.Errorf("%v: %s", r.err, r.said)
	}
	if !eventually(func() bool { return len(s.served(fronts...)) > before }) {
		return "", fmt.Errorf("no flow of the fronts %q", fronts)
	}
	text := "yes"
	front := s.served(fronts...)[before]["front"]
	switch {
	case front == "socks4":
		text = "yes, as SOCKS4A"
	case front == "connect" && fronts[0] == "http":
		text = "yes, by CONNECT"
	}
	if s.asked.has(shop) {
		text += "; asks its own resolver first"
	}
	return text, nil
}

// served returns the flows of some fronts that have brought answers of the origin.
func (s *site) served(fronts ...string) (list []map[string]any) {
	for _, f := range s.flows(shop) {
		if slices.Contains(fronts, f["front"].(string)) && (f["class"] == "ok" || f["class"] == "canceled") { // some clients leave with a reset
			list = append(list, f)
		}
	}
	return list
}

func eventually(f func() bool) bool {
	ok := true
	testkit.EventuallyOr(30*time.Second, f, func() { ok = false })
	return ok
}

// moves checks that 10 MiB arrive unchanged, in both directions if the client can.
func (s *site) moves(t *testing.T, c *client, p proxy, scheme string) (string, error) {
	t.Helper()
	if c.bulk != nil {
		return c.bulk(t, s, p)
	}
	if c.send == nil {
		r := s.run(t, p, c.fetch(s, p, scheme+"://"+shop+"/large"))
		if !bytes.Contains(r.got, s.payload) {
			return "", fmt.Errorf("%d bytes came, %v: %s", len(r.got), r.err, r.said)
		}
		return "down only", nil
	}
	r := s.run(t, p, c.send(s, p, s.file, scheme+"://"+shop+"/same"))
	if !bytes.Contains(r.got, s.payload) {
		return "", fmt.Errorf("up and down, %d bytes came, %v: %s", len(r.got), r.err, r.said)
	}
	return "yes", nil
}

// reuses says whether three requests of one process share a connection: a tunnel for
// https, the client's connection to the proxy for http.
func (s *site) reuses(t *testing.T, c *client, p proxy) (string, error) {
	t.Helper()
	if c.one || c.tunnel {
		return none, nil
	}
	three := func(scheme string) []string {
		var list []string
		for i := range 3 {
			list = append(list, fmt.Sprintf("%s://%s/small/%d", scheme, shop, i))
		}
		return list
	}
	var words []string
	for _, scheme := range []string{"https", "http"} {
		if scheme == "http" && c.onlyTLS {
			continue
		}
		tunnels := s.conns.Load()
		known := len(s.served("http"))
		r := s.run(t, p, c.fetch(s, p, three(scheme)...))
		if n := bytes.Count(r.got, []byte("answer")); n != 3 {
			return "", fmt.Errorf("%d answers of %s, %v: %s", n, scheme, r.err, r.said)
		}
		from := map[any]bool{} // connections to Pando, of plain HTTP
		for _, f := range s.served("http")[known:] {
			from[f["client"]] = true
		}
		one := len(from) == 1 || len(from) == 0 && s.conns.Load() == tunnels+1
		words = append(words, map[string]string{"https": "TLS", "http": "HTTP"}[scheme]+" "+map[bool]string{true: "yes", false: "no"}[one])
	}
	return strings.Join(words, ", "), nil
}

// fails returns what the user of a client reads when Pando refuses a URL with class.
func (s *site) fails(t *testing.T, c *client, p proxy, url, class string) (string, error) {
	t.Helper()
	host := strings.Split(strings.SplitN(url, "://", 2)[1], "/")[0]
	before := len(s.flows(host))
	r := s.run(t, p, c.fetch(s, p, url))
	if bytes.Contains(r.got, []byte("answer")) {
		return "", fmt.Errorf("it got an answer: %s", r.got)
	}
	reached := func() bool {
		for _, f := range s.flows(host)[before:] {
			if f["class"] == class {
				return true
			}
		}
		return false
	}
	if !eventually(reached) {
		return "", fmt.Errorf("no flow of class %s: %v, %s", class, r.err, r.said)
	}
	return quoted(s.reads(c.says, r)), nil
}

// reads returns what the user of a program reads about a failure.
func (s *site) reads(says *regexp.Regexp, r result) string {
	if says == nil {
		return r.said
	}
	return s.tidy(r.output, s.dir, says)
}

// quoted returns what a program says as the cell of a table.
func quoted(said string) string {
	if said == "" {
		return "nothing"
	}
	return "`" + strings.NewReplacer("`", "'", "|", "¦").Replace(said) + "`"
}
