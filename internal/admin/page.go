package admin

import (
	"fmt"
	"html"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/status"
)

// page builds the status page for a browser. It does not use html/template,
// which makes the linker keep every exported method of the program: 7 MiB.
type page struct{ strings.Builder }

const pageHead = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>%s – Pando</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em; max-width: 70em }
table { border-collapse: collapse; margin: .5em 0 1.5em }
td, th { padding: .2em .8em .2em 0; text-align: left; vertical-align: top }
b { color: #b00 }
</style>
`

// writePage writes st as a page for a browser.
func writePage(w io.Writer, st status.Replica) {
	var p page
	p.summary(st)
	p.device(st.Tailnet)
	p.peers(st.Peers)
	p.names(st.Zones, st.Resolvers)
	p.limits(st.Limits)
	p.flows(st)
	io.WriteString(w, p.String())
}

func (p *page) summary(st status.Replica) {
	name := st.Tailnet.Name
	if name == "" {
		name = "not on a tailnet"
	}
	ready := "Ready"
	if !st.Ready {
		ready = "Not ready"
	}
	fmt.Fprintf(p, pageHead, html.EscapeString(name))
	p.part("h1", name)
	p.part("p", fmt.Sprintf("%s; Pando %s, %s mode, started %s", ready, st.Version, st.Mode, st.Started.Format(time.RFC3339)))
	if st.Configuration != "" {
		p.part("b", st.Configuration)
	}
	p.table(func() {
		for _, c := range st.Checks {
			result := "ok"
			if c.Err != nil {
				result = c.Err.Error()
			}
			p.row(c.Name, result, c.Note)
		}
	})
}

func (p *page) device(d status.Device) {
	control := "connected"
	if !d.ControlConnected {
		control = "not connected"
	}
	p.part("h2", "Device")
	p.table(func() {
		p.row("Addresses", status.Join(d.Addrs))
		p.row("State", d.State)
		p.row("Control server", control)
		p.row("Login", d.LoginURL)
		p.row("Key expires", at(d.KeyExpiry))
		p.row("Home relay", d.HomeRelay)
		for _, h := range d.Health {
			p.row("Health", h)
		}
	})
}

func (p *page) peers(peers []status.Peer) {
	p.part("h2", "Peers")
	p.table(func() {
		p.row("name", "addresses", "routes", "online", "path", "handshake")
		for _, e := range peers {
			p.row(e.Name, status.Join(e.Addrs), status.Join(e.Routes), fmt.Sprint(e.Online), e.Path, ago(e.LastHandshake))
		}
	})
}

func (p *page) names(zones []status.Zone, resolvers []status.Resolver) {
	p.part("h2", "Names")
	p.table(func() {
		for _, z := range zones {
			p.row(z.Suffix, strings.Join(z.Resolvers, " "))
		}
	})
	p.table(func() {
		p.row("resolver", "last answer", "last failure", "error")
		for _, r := range resolvers {
			p.row(r.Server, ago(r.Answered), ago(r.Failed), r.Err)
		}
	})
}

func (p *page) limits(limits []status.Limit) {
	p.part("h2", "Limits")
	p.table(func() {
		p.row("limit", "now", "most", "")
		for _, l := range limits {
			p.row(l.Name, fmt.Sprint(l.Now), fmt.Sprint(l.Most), l.Note)
		}
	})
}

func (p *page) flows(st status.Replica) {
	p.part("h2", fmt.Sprintf("%d flows in progress", st.FlowsTotal))
	p.table(func() {
		p.row("client", "front", "target", "path", "address", "age", "bytes up", "bytes down")
		for _, f := range st.Flows {
			p.row(f.Client.String(), string(f.Front), f.Target(), string(f.Path), addr(f.Addr), f.Total.String(), fmt.Sprint(f.Up), fmt.Sprint(f.Down))
		}
	})
}

// part adds an element that holds text.
func (p *page) part(tag, text string) {
	fmt.Fprintf(p, "<%s>%s</%s>\n", tag, html.EscapeString(text), tag)
}

// table adds a table with the rows that rows adds.
func (p *page) table(rows func()) {
	p.WriteString("<table>\n")
	rows()
	p.WriteString("</table>\n")
}

func (p *page) row(cells ...string) {
	p.WriteString("<tr>")
	for _, c := range cells {
		p.WriteString("<td>" + html.EscapeString(c))
	}
	p.WriteByte('\n')
}

// ago says how long ago t was; nil means never.
func ago(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return time.Since(*t).Round(time.Second).String() + " ago"
}

// at says when t is; nil means never.
func at(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format(time.RFC3339)
}

// addr returns a as text, which is empty for an invalid address.
func addr(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
