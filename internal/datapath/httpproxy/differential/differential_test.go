package differential

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write the table again, with the other proxies where they are installed")

const (
	tableFile   = "testdata/table.md"
	reasonsFile = "testdata/reasons.txt"
)

// corpus returns the raw messages of a folder, by name.
func corpus(t *testing.T, folder string, least int) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/" + folder + "/*.raw")
	if err != nil || len(files) < least {
		t.Fatalf("%d files in %s, error %v; want at least %d", len(files), folder, err, least)
	}
	m := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		m[strings.TrimSuffix(filepath.Base(f), ".raw")] = string(b)
	}
	return m
}

// outcome is what one proxy did with one case.
type outcome struct {
	passed bool
	text   string
}

// ofRequest returns what a proxy did with a request: what the origin has seen, or the
// status of the refusal.
func ofRequest(o *recorder, answer string) outcome {
	seen := slices.DeleteFunc(o.take(), func(s request) bool { return !s.whole }) // a request that was cut is one that was refused
	if len(seen) == 0 {
		return outcome{false, refusal(answer)}
	}
	texts := []string{}
	for _, s := range seen {
		texts = append(texts, s.text)
	}
	return outcome{true, "passed: `" + strings.Join(texts, "` + `") + "`"}
}

// ofResponse returns what a proxy did with a response: what the client has read.
func ofResponse(answer string) outcome {
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
	if err != nil || resp.StatusCode >= 500 && resp.StatusCode < 600 {
		return outcome{false, refusal(answer)}
	}
	br := bufio.NewReader(strings.NewReader(answer))
	texts := []string{}
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			break
		}
		body, err := io.ReadAll(resp.Body)
		text := fmt.Sprintf("%d %q", resp.StatusCode, body)
		if v := resp.Header.Get("X-A"); v != "" {
			text += ", X-A: " + clean(v)
		}
		for name := range resp.Trailer {
			text += ", trailer " + name
		}
		if err != nil {
			text += ", cut"
		}
		texts = append(texts, text)
		if resp.Close {
			break
		}
	}
	return outcome{true, "passed: `" + strings.Join(texts, "` + `") + "`"}
}

// refusal returns the status that a client has read in place of an answer.
func refusal(answer string) string {
	f := strings.Fields(answer)
	switch {
	case answer == "":
		return "closed"
	case len(f) > 1 && strings.HasPrefix(f[0], "HTTP/"):
		return "refused: " + f[1]
	}
	return "refused"
}

// probe is the request for a case of a response.
const probe = "GET http://{origin}/ HTTP/1.1\r\nHost: {origin}\r\nConnection: close\r\n\r\n"

// results are the outcomes by case.
type results map[string]outcome

// pando returns what this proxy does, all cases at a time.
func pando(t *testing.T) (requests, responses results) {
	requests = results{}
	responses = results{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 32)
	each := func(m map[string]string, f func(name, raw string)) {
		for name, raw := range m {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				f(name, raw)
			})
		}
	}
	each(corpus(t, "requests", 150), func(name, raw string) {
		o := newRecorder(t, "")
		answer := throughPando(t, o, raw)
		mu.Lock()
		defer mu.Unlock()
		requests[name] = ofRequest(o, answer)
	})
	each(corpus(t, "responses", 60), func(name, raw string) {
		answer := throughPando(t, newRecorder(t, raw), probe)
		mu.Lock()
		defer mu.Unlock()
		responses[name] = ofResponse(answer)
	})
	wg.Wait()
	return requests, responses
}

// TestPandoColumn checks what this proxy does with each case against the committed
// table, and that its origin has seen what it logged.
func TestPandoColumn(t *testing.T) {
	requests, responses := pando(t)
	table := readTable(t)
	for part, got := range map[string]results{"requests": requests, "responses": responses} {
		for name, o := range got {
			row, ok := table[part+"/"+name]
			if !ok {
				t.Errorf("%s/%s is not in %s: run make differential", part, name, tableFile)
				continue
			}
			if row[0] != o.text {
				t.Errorf("%s/%s: %s; the table says %s; if that is meant, run make differential", part, name, o.text, row[0])
			}
		}
	}
}

// TestReasons checks that each case which this proxy passes on and another one refuses
// has a reason, which the table shows.
func TestReasons(t *testing.T) {
	reasons := readReasons(t)
	for key, row := range readTable(t) {
		need := strings.HasPrefix(row[0], "passed") && slices.ContainsFunc(row[1:4], func(s string) bool { return s != "" && !strings.HasPrefix(s, "passed") })
		switch {
		case need && reasons[key] == "":
			t.Errorf("%s is passed on here and refused by another proxy: write into %s why that is right", key, reasonsFile)
		case row[4] != reasons[key]:
			t.Errorf("%s: the table gives the reason %q, want %q: run make differential", key, row[4], reasons[key])
		}
	}
}

// readReasons returns the reasons by case.
func readReasons(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(reasonsFile)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, reason, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(line, "#") {
			m[name] = reason
		}
	}
	return m
}

// readTable returns the rows of the committed table by case: the four proxies and the
// reason.
func readTable(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]string{}
	part := ""
	for line := range strings.Lines(string(b)) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			part = strings.ToLower(strings.TrimSpace(h))
		}
		line = strings.ReplaceAll(strings.TrimSpace(line), `\|`, "\x00")
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|")
		if len(cells) == 5 { // the reason is empty
			cells = append(cells, "")
		}
		name := strings.TrimSpace(cells[0])
		if len(cells) == 6 && part != "" && name != "case" && name != "---" {
			for i := range cells {
				cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", `\|`)
			}
			m[part+"/"+cells[0]] = cells[1:]
		}
	}
	return m
}
