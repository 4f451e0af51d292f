package flow

import (
	"errors"
	"strings"
	"testing"
)

// TestCatch checks that a panic becomes an error of class internal, with its stack.
func TestCatch(t *testing.T) {
	check := func(name string, err error) {
		p, ok := errors.AsType[*Panic](err)
		if ClassOf(err) != Internal || HintOf(err) == "" || !ok || p.Value != "boom" || !strings.Contains(p.Stack, "fails") {
			t.Errorf("%s: error %v, want class %v, a hint and the stack", name, err, Internal)
		}
	}
	check("Catch", func() (err error) {
		defer Catch(&err)
		fails()
		return nil
	}())
	var got error
	func() {
		defer CatchTo(func(err error) { got = err })
		fails()
	}()
	check("CatchTo", got)
	got = nil
	ctx := WithPanics(t.Context(), func(err error) { got = err })
	check("CatchIn", func() (err error) {
		defer CatchIn(ctx, &err)
		fails()
		return nil
	}())
	check("the report of CatchIn", got)
	check("CatchIn without WithPanics", func() (err error) {
		defer CatchIn(t.Context(), &err)
		fails()
		return nil
	}())
	if err := func() (err error) {
		defer Catch(&err)
		return ErrNoAddress
	}(); err != ErrNoAddress {
		t.Errorf("Catch without a panic: error %v, want %v", err, ErrNoAddress)
	}
}

func fails() { panic("boom") }
