package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// MarshalJSON writes a flow in progress with its start and the keys of its log
// line. It leaves out the class, which is not known before the flow ends.
func (r Record) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	start, err := json.Marshal(r.Start)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, `{"start":%s`, start)
	for _, a := range r.LogValue().Group() {
		if a.Key == keyClass {
			continue
		}
		v, err := json.Marshal(a.Value.Any())
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, `,%q:%s`, a.Key, v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// recordJSON is the wire form of a Record. Its keys are those of the log line.
type recordJSON struct {
	Start   time.Time      `json:"start"`
	Front   Front          `json:"front"`
	Client  string         `json:"client"`
	User    string         `json:"user"`
	Target  string         `json:"target"`
	Method  string         `json:"method"`
	Status  int            `json:"status"`
	Path    Path           `json:"path"`
	Addr    netip.AddrPort `json:"addr"`
	Source  string         `json:"source"`
	Rule    string         `json:"rule"`
	Report  string         `json:"would_deny"`
	Reused  bool           `json:"reused"`
	Resolve float64        `json:"resolve_ms"`
	Dial    float64        `json:"dial_ms"`
	Total   float64        `json:"total_ms"`
	Up      int64          `json:"up"`
	Down    int64          `json:"down"`
	Err     string         `json:"err"`
	Hint    string         `json:"hint"`
}

// UnmarshalJSON reads what MarshalJSON writes. Durations come back in whole
// microseconds. Of an error, the text and the hint come back. Its class is
// Internal, because MarshalJSON leaves the class out.
func (r *Record) UnmarshalJSON(data []byte) error {
	var wire recordJSON
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	*r = Record{
		Request: Request{Front: wire.Front, User: wire.User},
		Start:   wire.Start,
		Source:  wire.Source,
		Rule:    wire.Rule,
		Report:  wire.Report,
		Addr:    wire.Addr,
		Path:    wire.Path,
		Reused:  wire.Reused,
		Status:  wire.Status,
		Method:  wire.Method,
		Resolve: milliseconds(wire.Resolve),
		Dial:    milliseconds(wire.Dial),
		Total:   milliseconds(wire.Total),
		Up:      wire.Up,
		Down:    wire.Down,
	}
	if client, err := netip.ParseAddrPort(wire.Client); err == nil { // an invalid one has a text that is not an address
		r.Client = client
	}
	if wire.Target != "" {
		host, text, err := net.SplitHostPort(wire.Target)
		if err != nil {
			return fmt.Errorf("target %q: %w", wire.Target, err)
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return fmt.Errorf("target %q: %w", wire.Target, err)
		}
		r.Host = host
		r.Port = uint16(port)
	}
	if wire.Err != "" {
		r.Err = &readError{text: wire.Err, cause: Error{Class: Internal, Hint: wire.Hint}}
	}
	return nil
}

// milliseconds returns ms as a duration, rounded to microseconds.
func milliseconds(ms float64) time.Duration {
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Microsecond)
}

// readError is a record's error that was read from JSON. HintOf finds its hint.
type readError struct {
	text  string
	cause Error
}

func (e *readError) Error() string { return e.text }

func (e *readError) Unwrap() error { return &e.cause }
