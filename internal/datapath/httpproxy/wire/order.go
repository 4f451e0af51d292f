package wire

import (
	"bufio"
	"net/http"
	"slices"
	"strings"
)

// Order has the names of fields as they came: in their order and spelling, each followed
// by LF. net/http keeps neither, and some peers rely on both. The name Trailer is
// followed by a colon and its value, which net/http does not keep as it came.
type Order string

// has reports whether there is a field with this name. Case does not matter.
func (o Order) has(name string) bool {
	for line := range strings.SplitSeq(string(o), "\n") {
		if len(line) >= len(name) && strings.EqualFold(line[:len(name)], name) && (len(line) == len(name) || line[len(name)] == ':') {
			return true
		}
	}
	return false
}

// field is one field line.
type field struct {
	name  string // as it came
	key   string // in canonical form
	value string // "" if net/http has removed it; of Trailer, as it came
}

// fields returns the field lines of a message in their order, with the values of header,
// which net/http has parsed. Fields that only header has are not among them.
type fields struct {
	rest   Order
	header http.Header
	taken  map[string]int // values so far, of fields that have several
}

// next returns the next field line; false behind the last one.
func (fs *fields) next() (field, bool) {
	line, rest, ok := strings.Cut(string(fs.rest), "\n")
	if !ok {
		return field{}, false
	}
	fs.rest = Order(rest)
	name, value, _ := strings.Cut(line, ":")
	f := field{
		name:  name,
		key:   http.CanonicalHeaderKey(name),
		value: value,
	}
	switch values := fs.header[f.key]; {
	case len(values) == 1:
		f.value = values[0]
	case len(values) > 1:
		if fs.taken == nil {
			fs.taken = map[string]int{}
		}
		f.value = values[min(fs.taken[f.key], len(values)-1)]
		fs.taken[f.key]++
	}
	return f, true
}

// own is a field that this proxy writes in its own words. It takes the place and the
// spelling of the first field line with this name, and replaces all of them.
type own struct {
	name    string // as it is written if the message has no such field
	key     string // name in canonical form
	value   string
	written bool // it is not written, or not again
}

// writeFields writes the end-to-end fields of h in their order, with mine in their place,
// and those of mine that have no place behind them. trailers passes announcements of
// trailer fields on.
func writeFields(w *bufio.Writer, order Order, h http.Header, mine []own, trailers bool) {
	options := ConnectionOptions(h)
	all := fields{rest: order, header: h}
	for f, ok := all.next(); ok; f, ok = all.next() {
		i := slices.IndexFunc(mine, func(m own) bool { return m.key == f.key })
		switch {
		case i >= 0 && mine[i].written:
		case i >= 0:
			WriteField(w, f.name, mine[i].value)
			mine[i].written = true
		case f.key == "Trailer" && trailers:
			writeAnnouncement(w, f)
		case h[f.key] != nil && options.EndToEnd(f.key):
			WriteField(w, f.name, f.value)
		}
	}
	for _, m := range mine {
		if !m.written {
			WriteField(w, m.name, m.value)
		}
	}
}
