package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// messageWords is how many words a log message has at most.
const messageWords = 8

// messageAt says which argument of a method of slog.Logger is the message; -1
// means that the method only takes attributes.
var messageAt = map[string]int{
	"Debug": 0, "Info": 0, "Warn": 0, "Error": 0,
	"DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1,
	"Log": 2, "LogAttrs": 2, "With": -1,
}

// Rule 12: a log message is a constant of at most eight words that begins with a
// small letter. What varies is an attribute, under a key that is not one of slog's.
func TestLogMessages(t *testing.T) {
	n := 0
	for _, f := range source(t) {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(node ast.Node) bool {
			if call, ok := node.(*ast.CallExpr); ok && isLog(call) {
				n++
				if fault := logFault(call); fault != "" {
					t.Errorf("%s: %s", fset.Position(call.Pos()), fault)
				}
			}
			return true
		})
	}
	if n < 30 {
		t.Errorf("found only %d log lines: the test looks for the wrong thing", n)
	}
}

// isLog reports whether call is a method of a logger: of a variable or field
// called log, Log or logger, or of package slog.
func isLog(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	if _, known := messageAt[method.Sel.Name]; !known {
		return false
	}
	of := ""
	switch x := method.X.(type) {
	case *ast.Ident:
		of = x.Name
	case *ast.SelectorExpr:
		of = x.Sel.Name
	}
	return slices.Contains([]string{"log", "logger", "slog"}, strings.ToLower(of))
}

// logFault says what is wrong with a line of the log, or "".
func logFault(call *ast.CallExpr) string {
	at := messageAt[call.Fun.(*ast.SelectorExpr).Sel.Name]
	if at >= len(call.Args) {
		return "the message is missing"
	}
	if at >= 0 {
		message, ok := constant(call.Args[at])
		first, _ := utf8.DecodeRuneInString(message)
		switch words := len(strings.Fields(message)); {
		case !ok:
			return "the message is not a constant; write it here, and what varies as an attribute"
		case words > messageWords:
			return fmt.Sprintf("the message %q has %d words, want at most %d; write the details as attributes", message, words, messageWords)
		case unicode.IsUpper(first):
			return fmt.Sprintf("the message %q begins with a capital letter", message)
		}
	}
	for i := at + 1; i < len(call.Args); i++ {
		key, ok := constant(call.Args[i])
		if attr, isCall := call.Args[i].(*ast.CallExpr); isCall && len(attr.Args) > 0 { // slog.String(key, …)
			key, _ = constant(attr.Args[0])
		} else if ok {
			i++ // its value
		}
		if slices.Contains([]string{"msg", "level", "time"}, key) {
			return fmt.Sprintf("the key %q is one of slog's own; use another", key)
		}
	}
	return ""
}

// constant returns the text of a string literal.
func constant(e ast.Expr) (text string, ok bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

func TestLogFault(t *testing.T) {
	for line, want := range map[string]string{
		`g.log.Info("work was cut", "flows", n, "for", err)`:         "",
		`o.Log.Warn("the WireGuard session is lost", "level_is", 1)`: "",
		`log.With("replica", r.name)`:                                "",
		`log.LogAttrs(ctx, level, "flow", slog.Any("flow", r))`:      "",
		`log.Info(message, "err", err)`:                              "not a constant",
		`log.Info("cut " + what)`:                                    "not a constant",
		`log.Info("one two three four five six seven eight nine")`:   "9 words",
		`l.Log.Error("Work was cut")`:                                "capital",
		`log.InfoContext(ctx, "Work was cut")`:                       "capital",
		`log.Info("work was cut", "n", "msg", "msg", text)`:          `key "msg"`,
		`log.Info("work was cut", slog.String("time", text))`:        `key "time"`,
		`log.With("level", 3)`:                                       `key "level"`,
	} {
		e, err := parser.ParseExpr(line)
		if err != nil {
			t.Fatal(err)
		}
		call := e.(*ast.CallExpr)
		if got := logFault(call); !isLog(call) || (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: the fault is %q, want %q", line, got, want)
		}
	}
}
