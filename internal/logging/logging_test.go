package logging

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// line is what these tests read of a line.
type line struct {
	Level, Msg, Text string
	Client           string
	Flow             struct{ Client, Class, Target string }
	More             int
}

func read(t *testing.T, out *testkit.Buffer) (list []line) {
	t.Helper()
	for text := range strings.Lines(out.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("line %q: %v", text, err)
		}
		list = append(list, l)
	}
	return list
}

// record returns the record of a flow of a client that has ended with class.
func record(client string, class flow.Class, target string) *flow.Record {
	rec := flow.NewRecord(flow.Connect, netip.MustParseAddrPort(client))
	rec.Host = target
	rec.Port = 443
	if class != flow.OK {
		rec.Err = &flow.Error{Class: class}
	}
	return rec
}

// TestLinesOfAClient checks how many lines are written of those that are alike, and that
// the others are counted: no flow is missing from the sum.
func TestLinesOfAClient(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(log *slog.Logger, i int)
		n     int
		lines int // in all
		more  []int
	}{
		{"few", func(log *slog.Logger, i int) { log.Info("flow", "flow", record("10.0.0.1:1", flow.Denied, "a")) }, 50, 50, nil},
		{"one_too_many", func(log *slog.Logger, i int) { log.Info("flow", "flow", record("10.0.0.1:1", flow.Denied, "a")) }, 51, 51, nil},
		{"flood", func(log *slog.Logger, i int) {
			log.Info("flow", "flow", record(fmt.Sprintf("10.0.0.1:%d", i+1), flow.Denied, "a"))
		}, 1000, 51, []int{949}},
		{"flood_of_successes", func(log *slog.Logger, i int) { log.Info("flow", "flow", record("10.0.0.1:1", flow.OK, "a")) }, 1000, 51, []int{949}},
		{"two_clients", func(log *slog.Logger, i int) {
			log.Info("flow", "flow", record(fmt.Sprintf("10.0.0.%d:1", i%2), flow.Denied, "a"))
		}, 200, 102, []int{49, 49}},
		{"two_classes", func(log *slog.Logger, i int) {
			log.Info("flow", "flow", record("10.0.0.1:1", []flow.Class{flow.Denied, flow.NoRoute}[i%2], "a"))
		}, 200, 102, []int{49, 49}},
		{"line_that_is_no_flow", func(log *slog.Logger, i int) {
			log.With("port", "x").Info("client speaks an unsupported protocol", "client", "10.0.0.1:1")
		}, 1000, 51, []int{949}},
		{"no_client", func(log *slog.Logger, i int) { log.Info("configuration reloaded") }, 1000, 1000, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out testkit.Buffer
				log, _ := New(&out, false, slog.LevelInfo)
				for i := range c.n {
					c.write(log, i)
				}
				time.Sleep(window)
				synctest.Wait()
				lines := read(t, &out)
				sum := len(lines)
				var more []int
				for _, l := range lines {
					sum += l.More
					if l.More > 0 {
						more = append(more, l.More)
					}
				}
				if len(lines) != c.lines || !slices.Equal(more, c.more) || sum != c.n {
					t.Errorf("got %d lines, with %v more, %d in all; want %d lines, with %v more, %d in all", len(lines), more, sum, c.lines, c.more, c.n)
				}
			})
		})
	}
}

// TestNextWindow checks that a client's lines are written again after a second, and that
// flush writes what is held back.
func TestNextWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out testkit.Buffer
		log, flush := New(&out, false, slog.LevelInfo)
		for range 3 {
			for range 60 {
				log.Info("flow", "flow", record("10.0.0.1:1", flow.Denied, "a"))
			}
			time.Sleep(window)
			synctest.Wait()
		}
		if n := len(read(t, &out)); n != 3*51 {
			t.Errorf("got %d lines in three seconds, want %d", n, 3*51)
		}
		for range 60 {
			log.Info("flow", "flow", record("10.0.0.1:1", flow.Denied, "a"))
		}
		flush()
		lines := read(t, &out)
		if last := lines[len(lines)-1]; last.More != 9 || last.Flow.Class != "denied" || last.Flow.Target != "a:443" {
			t.Errorf("the last line after flush is %+v, want a flow and 9 more", last)
		}
	})
}

// TestCountsAreBounded checks that the memory for counts does not follow the number of
// clients, and that the clients that share a count are bounded together.
func TestCountsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := New(io.Discard, false, slog.LevelInfo)
		c := log.Handler().(bounded).counts
		client := netip.MustParseAddr("10.0.0.0")
		for range 3 * maxCounts {
			client = client.Next()
			for _, class := range []flow.Class{flow.Denied, flow.NoRoute} {
				log.Info("flow", "flow", record(client.String()+":1", class, "a"))
			}
		}
		c.mu.Lock()
		if n := len(c.lines); n > maxCounts+2 {
			t.Errorf("%d counts for %d clients, want %d at most", n, 3*maxCounts, maxCounts+2)
		}
		shared := c.lines[key{message: "flow", class: flow.Denied}]
		if shared == nil || shared.write == nil {
			t.Error("the clients beyond the bound have no count that holds lines back")
		}
		c.mu.Unlock()
		time.Sleep(window)
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.lines != nil {
			t.Errorf("%d counts are left after the window, want none", len(c.lines))
		}
	})
}

// TestLibraryLines checks that lines of package log come at debug level, as an attribute,
// and that a library's warning stays one.
func TestLibraryLines(t *testing.T) {
	before := slog.Default()
	writer := log.Writer()
	flags := log.Flags()
	defer func() {
		slog.SetDefault(before)
		log.SetOutput(writer)
		log.SetFlags(flags)
	}()
	for _, level := range []slog.Level{slog.LevelInfo, slog.LevelDebug} {
		var out testkit.Buffer
		l, _ := New(&out, false, level)
		slog.SetDefault(slog.New(Library(l.Handler())))
		log.Printf("tlsdial: %d", 1)
		slog.Warn("careful")
		want := []line{{Level: "DEBUG", Msg: "library", Text: "tlsdial: 1"}, {Level: "WARN", Msg: "library", Text: "careful"}}
		if level == slog.LevelInfo {
			want = want[1:]
		}
		if got := read(t, &out); !slices.Equal(got, want) {
			t.Errorf("at level %v: got %+v, want %+v", level, got, want)
		}
	}
}
