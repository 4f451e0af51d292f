package strictyaml

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parse returns the documents that r contains, two at most.
func parse(r io.Reader) (docs []*yaml.Node, err error) {
	dec := yaml.NewDecoder(r)
	for len(docs) < 2 {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		docs = append(docs, &doc)
	}
	return docs, nil
}

func isValid(data []byte) bool {
	_, err := parse(bytes.NewReader(data))
	return err == nil
}

// syntaxError is the form of the library's errors. Those of its second stage have a
// line that is one too low.
var (
	syntaxError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)
	secondStage = regexp.MustCompile(`^did not find expected (key$|node content|'|<)`)
)

// syntax reports what the YAML parser found: "yaml: line 3: problem".
func (d *decoder) syntax(data []byte, err error) {
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		d.AddAt(Origin{Where: d.file}, "", errors.New("not a text file"))
		return
	}
	problem := "it cannot be parsed"
	reported := 0
	if m := syntaxError.FindStringSubmatch(err.Error()); m != nil {
		reported, _ = strconv.Atoi(m[1]) // 0 without a line
		problem = m[2]
	}
	if strings.HasPrefix(problem, "unknown anchor") { // the library repeats its name
		problem = "unknown anchor"
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	place, ok := problemPlace(data, lines, reported)
	if !ok {
		if secondStage.MatchString(problem) {
			reported++
		}
		place.Line = min(max(reported, 1), len(lines))
		place.Column = 1 + len(indentOf(lines[place.Line-1]))
	}
	if tab := bytes.IndexByte(indentOf(lines[place.Line-1]), '\t'); tab >= 0 {
		place.Column = tab + 1
		problem = "indent with spaces, not tabs"
	}
	d.AddAt(d.at(&place), "", errors.New("invalid YAML: "+problem))
}

// problemPlace returns where data, which is not valid, stops being valid YAML: the
// text before that place can be parsed, and no longer part of it can. For a bracket
// or a quote that is not closed this is the bracket or the quote. The library gives
// no column, and its line, reported, may be that of the section around the problem.
// ok is false if there is nothing before the place, as in a file that is one large JSON
// object, or if the place is before that line, or far from where the parser gave up, or
// if the search would take too long.
func problemPlace(data []byte, lines [][]byte, reported int) (place yaml.Node, ok bool) {
	const tries = 100 // a parse for each line
	left := mostParsed
	valid := func(end int) bool {
		left -= end
		return left >= 0 && isValid(data[:end])
	}
	failed := &lineReader{lines: lines}
	parse(failed) // fails again
	start := len(bytes.Join(lines[:failed.read], nil))
	for n := failed.read; n >= max(1, reported, failed.read-tries); n-- {
		line := lines[n-1]
		start -= len(line)
		if !valid(start) {
			continue
		}
		column := len(line) - 1
		for column > 0 && !(utf8.RuneStart(line[column]) && valid(start+column)) {
			column--
		}
		place.Line = n
		place.Column = utf8.RuneCount(line[:max(column, 0)]) + 1
		docs, err := parse(bytes.NewReader(data[:start+max(column, 0)]))
		return place, left >= 0 && err == nil && len(docs) > 0
	}
	return place, false
}

// mostParsed is how many bytes are parsed at most to find the place of a problem. A
// file that is one long line would take hours.
const mostParsed = 1 << 20

// lineReader reads lines, one in each call, so that a parser reads no more of them
// than it needs.
type lineReader struct {
	lines [][]byte
	read  int    // how many lines were read, in part or whole
	rest  []byte // of the last one
}

func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.read == len(r.lines) {
			return 0, io.EOF
		}
		r.rest = r.lines[r.read]
		r.read++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// indentOf returns the white space at the beginning of a line.
func indentOf(line []byte) []byte {
	return line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
}
