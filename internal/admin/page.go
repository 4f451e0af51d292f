package admin

import (
	"fmt"
	"html"
	"io"
	"net/netip"
	"strings"
	"time"
)

// page is the status for a browser. It is written by hand, for html/template makes
// the linker keep every exported method of the program: 7 MiB of it.
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

func writePage(w io.Writer, st Status) {
	var p page
	name := st.Tailnet.Name
	if name == "" {
		name = "not on a tailnet"
	}
	fmt.Fprintf(&p, pageHead, html.EscapeString(name))
	p.part("h1", name)
	ready := "Ready"
	if !st.Ready {
		ready = "Not ready"
	}
	p.part("p", fmt.Sprintf("%s; Pando %s, %s mode, started %s", ready, st.Version, st.Mode, st.Started.Format(time.RFC3339)))
	if st.Configuration != "" {
		p.part("b", st.Configuration)
	}
	p.table(func() {
		for _, c := range st.Checks {
			says := "ok"
			if c.Err != nil {
				says = c.Err.Error()
			}
			p.row(c.Name, says, c.Note)
		}
	})
	t := st.Tailnet
	p.part("h2", "Device")
	p.table(func() {
		p.row("Addresses", words(t.Addrs))
		p.row("State", t.State)
		p.row("Control server", map[bool]string{true: "connected", false: "away"}[t.ControlConnected])
		p.row("Key expires", at(t.KeyExpiry))
		p.row("Home relay", t.HomeRelay)
		for _, h := range t.Health {
			p.row("Health", h)
		}
	})
	p.part("h2", "Peers")
	p.table(func() {
		p.row("name", "addresses", "routes", "online", "path", "handshake")
		for _, e := range st.Peers {
			p.row(e.Name, words(e.Addrs), words(e.Routes), fmt.Sprint(e.Online), e.Path, ago(e.LastHandshake))
		}
	})
	p.part("h2", "Names")
	p.table(func() {
		for _, z := range st.Zones {
			p.row(z.Suffix, strings.Join(z.Resolvers, " "))
		}
	})
	p.table(func() {
		p.row("resolver", "answered", "failed", "why")
		for _, r := range st.Resolvers {
			p.row(r.Server, ago(r.Answered), ago(r.Failed), r.Err)
		}
	})
	p.part("h2", "Limits")
	p.table(func() {
		p.row("limit", "now", "most", "")
		for _, l := range st.Limits {
			p.row(l.Name, fmt.Sprint(l.Now), fmt.Sprint(l.Most), l.Note)
		}
	})
	p.part("h2", fmt.Sprintf("%d flows in progress", st.FlowsTotal))
	p.table(func() {
		p.row("client", "front", "target", "path", "address", "for", "up", "down")
		for _, f := range st.Flows {
			p.row(f.Client.String(), string(f.Front), f.Target(), string(f.Path), addr(f.Addr), f.Total.String(), fmt.Sprint(f.Up), fmt.Sprint(f.Down))
		}
	})
	io.WriteString(w, p.String())
}

func (p *page) part(tag, text string) {
	fmt.Fprintf(p, "<%s>%s</%s>\n", tag, html.EscapeString(text), tag)
}

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

func words[T fmt.Stringer](list []T) string { return strings.Trim(fmt.Sprint(list), "[]") }

func ago(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return time.Since(*t).Round(time.Second).String() + " ago"
}

func at(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format(time.RFC3339)
}

func addr(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
