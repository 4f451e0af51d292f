//go:build clients && linux

package clients

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	update = flag.Bool("update", false, "write docs/clients.md and its picture")
	only   = flag.String("only", "", "run the clients whose name contains this")
)

// row is what the page says about a client.
type row struct {
	name    string
	version string
	setting string
	cells   map[string]string
}

// TestClients runs every client, and writes the page with -update.
func TestClients(t *testing.T) {
	s := newSite(t)
	s.makeRepository(t)
	if find("javac") != "javac" {
		s.compileJava(t)
	}
	if find("certutil") != "certutil" {
		s.trustCA(t)
	}
	var rows, forward []row
	skipped := 0
	skip := func(t *testing.T, need string) {
		skipped++
		t.Skipf("SKIPPED, NOT TESTED: %s is not installed; make clients, as root on Debian, does it", need)
	}
	for _, c := range all() {
		if !strings.Contains(c.name, *only) {
			skipped++
			continue
		}
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			if need := c.missingNeed(); need != "" {
				skip(t, need)
			}
			r := row{c.name, s.versionOf(t, c.version), c.setting, map[string]string{}}
			for _, column := range append(columns, failures...) {
				r.cells[column] = s.judged(t, &c, column)
			}
			rows = append(rows, r)
		})
	}
	for _, d := range databases() {
		if !strings.Contains(d.name, *only) {
			skipped++
			continue
		}
		t.Run(strings.ReplaceAll(d.name, " ", "_"), func(t *testing.T) {
			if need := d.missingNeed(); need != "" {
				skip(t, need)
			}
			r := row{d.name, s.versionOf(t, d.version), d.setting, map[string]string{}}
			for _, column := range forwardColumns {
				text, err := s.forwardCell(t, d, column)
				if err != nil {
					t.Errorf("%s: %v", column, err)
				}
				t.Logf("%-24s %s", column, text)
				r.cells[column] = text
			}
			forward = append(forward, r)
		})
	}
	switch {
	case !*update:
	case skipped > 0 || t.Failed():
		t.Errorf("docs/clients.md is not written: %d clients did not run, or a cell is wrong", skipped)
	default:
		s.takeScreenshot(t)
		if err := os.WriteFile("../docs/clients.md", []byte(page(rows, forward)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// judged returns the cell of a client. It fails the test if the cell does not work and
// the fault is not the client's own, and if a fault of the client is gone.
func (s *site) judged(t *testing.T, c *client, column string) string {
	t.Helper()
	why, isFault := c.faults[column]
	if why == none {
		return none
	}
	text, err := s.cell(t, c, column)
	switch {
	case isFault && err == nil:
		t.Errorf("%s: %s, although the list of faults says %q", column, text, why)
	case isFault:
		t.Logf("%-24s %s (%v)", column, why, err)
		return why
	case err != nil:
		t.Errorf("%s: %v", column, err)
	default:
		t.Logf("%-24s %s", column, text)
	}
	return text
}

var versionForm = regexp.MustCompile(`\d+(\.\d+)+[\w.+~-]*`)

// versionOf returns the version that a command prints.
func (s *site) versionOf(t *testing.T, args []string) string {
	t.Helper()
	r := s.run(t, proxy{"http", s.proxy}, cmd(args...))
	if v := versionForm.FindString(string(r.got)); v != "" {
		return v
	}
	v := versionForm.FindString(r.said)
	if v == "" {
		t.Errorf("%q prints no version: %v: %s", args, r.err, r.said)
	}
	return v
}

// forwardColumns are the columns of the table of forward.
var forwardColumns = []string{colAnswer, colBulk, colDenied, colUnknown, colRefused}

const colAnswer = "a query over verified TLS"

// page returns docs/clients.md.
func page(rows, forward []row) string {
	var b strings.Builder
	b.WriteString(`# Clients

What real client programs do with Pando. ` + "`make clients`" + ` wrote this page: it ran each program, in a
network namespace without a way out, through a replica to a server behind a tailnet. The names exist
behind the tailnet only. ` + "`clients/`" + ` has the commands, and ` + "`tools/clients/`" + ` the scripts.

## What works

`)
	table(&b, rows, append([]string{"set by"}, columns...), func(r row, column string) string {
		if column == "set by" {
			return r.setting
		}
		return r.cells[column]
	})
	b.WriteString(`
- **TLS by CONNECT**: the program gets a page over HTTPS and verifies the server's certificate. ` + "`socat`" + `,
  ` + "`ncat`" + `, ` + "`nc`" + ` and ` + "`ssh`" + ` make the tunnel; they have no TLS of their own here.
- **SOCKS, names sent along**: Pando looks the name up, the program does not.
- **10 MiB both ways**: the program sends 10 MiB and gets them back unchanged. "down only": the program
  cannot upload.
- **reuse**: three requests of one process use one connection. For plain HTTP, that is the connection to
  Pando.
- "` + none + `": the program does not have that.

`)
	b.WriteString(notes)
	b.WriteString(`
## What the user reads

The last line that the program prints when Pando refuses. A reason phrase and a hint come from Pando.
For plain HTTP the hint is in the body of the response, too: some programs print it, others print the
status alone. The log line of the flow always has the class and the hint
([troubleshooting](troubleshooting.md)).

`)
	table(&b, rows, failures, func(r row, column string) string { return r.cells[column] })
	b.WriteString(`
## Without a proxy setting

Clients of databases connect to a port of ` + "`forward`" + `. Pando cannot answer in their protocol: if it cannot
connect, they see a connection that ends.

`)
	table(&b, forward, append([]string{"set by"}, forwardColumns...), func(r row, column string) string {
		if column == "set by" {
			return r.setting
		}
		return r.cells[column]
	})
	b.WriteString(`
## A browser

![A page behind the tailnet, in Chromium](clients.png)
`)
	return b.String()
}

// notes says what the table cannot.
const notes = `Good to know:

- wget2 1.99.1 never sends CONNECT. It asks the proxy for the ` + "`https://`" + ` URL, and drops the port from a URL:
  this is its own fault.
- BusyBox wget asks the proxy for the ` + "`https://`" + ` URL, too. Pando refuses that with
  status 400, unless ` + "`http.originTLS`" + ` is on, as it is in place of the stock container.
- Ruby and Java's URLConnection ask the pod's resolver for each name before they use the proxy. They
  ignore that it does not know the name.
- ` + "`socks5://`" + ` without the h has curl, git, requests and got look names up by themselves. Chromium, httpx
  and Go send the name along in both cases.
- Node's fetch, PySocks, ws and proxychains4 use CONNECT for plain HTTP, too. Rules see each tunnel, not
  each request.
- grpcurl waits for its time limit instead of saying what the proxy has answered. The log line of the
  flow says it.
`

// table writes a table with a row for each client.
func table(b *strings.Builder, rows []row, columns []string, cell func(row, string) string) {
	fmt.Fprintf(b, "| client | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, r := range rows {
		fmt.Fprintf(b, "| %s %s |", r.name, r.version)
		for _, column := range columns {
			fmt.Fprintf(b, " %s |", cell(r, column))
		}
		b.WriteByte('\n')
	}
}
