package flow

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

func TestTarget(t *testing.T) {
	for _, c := range []struct{ name, host, want string }{
		{"unknown", "", ""},
		{"name", "api.corp.example", "api.corp.example:443"},
		{"ipv4", "10.0.0.1", "10.0.0.1:443"},
		{"ipv6", "2001:db8::1", "[2001:db8::1]:443"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (Request{Host: c.host, Port: 443}).Target(); got != c.want {
				t.Errorf("Target() of %q = %q, want %q", c.host, got, c.want)
			}
		})
	}
}

// TestNewRecord checks that a record starts when it is made.
func TestNewRecord(t *testing.T) {
	client := netip.MustParseAddrPort("10.244.1.7:40122")
	before := time.Now()
	rec := NewRecord(Web, client)
	if rec.Front != Web || rec.Client != client {
		t.Errorf("NewRecord = front %q of client %v, want %q of %v", rec.Front, rec.Client, Web, client)
	}
	if rec.Start.Before(before) || rec.Start.After(time.Now()) {
		t.Errorf("Start = %v, want a time since %v", rec.Start, before)
	}
}

// TestClassNames checks that each class has a name of its own.
func TestClassNames(t *testing.T) {
	seen := map[string]Class{}
	for _, c := range Classes() {
		s := c.String()
		if other, ok := seen[s]; ok || s == "" || s == "unknown" {
			t.Errorf("String() of class %d = %q, want a name that class %d does not have", c, s, other)
		}
		seen[s] = c
	}
	if got := classes.String(); got != "unknown" {
		t.Errorf("String() of a class that does not exist = %q, want %q", got, "unknown")
	}
}

func TestClassAndHint(t *testing.T) {
	denied := &Error{Class: Denied, Op: "policy", Target: "db:5432", Hint: "ask the owner", Err: io.EOF}
	outer := &Error{Class: NoRoute, Op: "dial", Err: denied}
	for _, c := range []struct {
		name  string
		err   error
		class Class
		hint  string
	}{
		{"nil", nil, OK, ""},
		{"unknown_kind", io.EOF, Internal, ""},
		{"error", denied, Denied, "ask the owner"},
		{"wrapped", fmt.Errorf("road: %w", denied), Denied, "ask the owner"},
		{"joined", errors.Join(io.EOF, denied), Denied, "ask the owner"},
		{"first_of_the_chain_wins", outer, NoRoute, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ClassOf(c.err); got != c.class {
				t.Errorf("ClassOf(%v) = %v, want %v", c.err, got, c.class)
			}
			if got := HintOf(c.err); got != c.hint {
				t.Errorf("HintOf(%v) = %q, want %q", c.err, got, c.hint)
			}
		})
	}
	if !errors.Is(outer, io.EOF) {
		t.Errorf("errors.Is(%v, io.EOF) = false, want true", outer)
	}
}

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		name string
		err  Error
		want string
	}{
		{"class_alone", Error{Class: NotReady, Op: "tailnet"}, "tailnet: not_ready"},
		{"target", Error{Class: Denied, Op: "policy", Target: "db:5432", Hint: "not shown"}, "policy db:5432: denied"},
		{"cause", Error{Class: Reset, Op: "relay", Target: "db:5432", Err: io.EOF}, "relay db:5432: reset: EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.err.Error(); got != c.want {
				t.Errorf("Error() = %q, want %q", got, c.want)
			}
		})
	}
}

// fullRecord returns a record with a value in every field.
func fullRecord() *Record {
	return &Record{
		Request: Request{
			Front:  HTTP,
			Client: netip.MustParseAddrPort("10.244.1.7:40122"),
			User:   "batch",
			Host:   "api.corp.example",
			Port:   8080,
		},
		Start:   time.Date(2026, 11, 23, 12, 0, 0, 5000, time.UTC),
		Source:  "zone corp.example",
		Rule:    "no-databases",
		Report:  "rule no-databases",
		Addr:    netip.MustParseAddrPort("100.64.0.9:8080"),
		Path:    Tailnet,
		Reused:  true,
		Status:  502,
		Method:  "GET",
		Resolve: 1501 * time.Microsecond,
		Dial:    20 * time.Millisecond,
		Total:   2 * time.Second,
		Up:      17,
		Down:    4 << 30,
		Err: &Error{
			Class:  Reset,
			Op:     "http",
			Target: "api.corp.example:8080",
			Hint:   "try again",
			Err:    io.ErrUnexpectedEOF,
		},
	}
}

// TestRecordGolden checks the log line against a golden file, which is the
// contract with programs that parse the log.
func TestRecordGolden(t *testing.T) {
	const golden = "testdata/record.golden.json"
	full := fullRecord()
	minimal := NewRecord(SOCKS5, netip.MustParseAddrPort("10.244.1.7:40122"))
	minimal.Host = "2001:db8::1"
	minimal.Port = 443

	var lines bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&lines, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	var got bytes.Buffer
	for _, c := range []struct {
		message string
		record  *Record
	}{{"full", full}, {"minimal", minimal}} {
		lines.Reset()
		log.Info(c.message, "flow", c.record)
		if err := json.Indent(&got, lines.Bytes(), "", "  "); err != nil {
			t.Fatal(err)
		}
	}
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the log line changed; if that is intended, run: go test ./internal/flow -update\ngot:\n%s\nwant:\n%s", &got, want)
	}
}
