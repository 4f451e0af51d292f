package flow

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

// Panic is a panic that was caught, as the cause of an Error of class Internal. It
// ends one flow, not the process.
type Panic struct {
	Value any    // of the call to panic
	Stack string // of the goroutine, at the panic

	reported atomic.Bool
}

// Unreported reports whether this is its first call, so that a panic is logged and
// counted once, however many see it.
func (p *Panic) Unreported() bool { return !p.reported.Swap(true) }

func (p *Panic) Error() string { return fmt.Sprint("panic: ", p.Value) }

// IsPanic reports whether err is of a panic that was caught.
func IsPanic(err error) bool {
	_, ok := errors.AsType[*Panic](err)
	return ok
}

// Catch turns a panic of the function that defers it into *err. Each goroutine that
// works for a client begins with Catch, CatchIn or CatchTo.
func Catch(err *error) {
	if v := recover(); v != nil {
		*err = caught(v)
	}
}

// panicsKey is the key of a context's function for panics.
type panicsKey struct{}

// WithPanics returns a context in which CatchIn calls f for each panic.
func WithPanics(ctx context.Context, f func(error)) context.Context {
	return context.WithValue(ctx, panicsKey{}, f)
}

// CatchIn is Catch for a goroutine whose error may be dropped, because another one
// has succeeded: it reports the panic at once.
func CatchIn(ctx context.Context, err *error) {
	if v := recover(); v != nil {
		*err = caught(v)
		if f, ok := ctx.Value(panicsKey{}).(func(error)); ok {
			f(*err)
		}
	}
}

// CatchTo passes a panic of the function that defers it to f.
func CatchTo(f func(error)) {
	if v := recover(); v != nil {
		f(caught(v))
	}
}

func caught(v any) error {
	if err, ok := v.(error); ok && IsPanic(err) {
		return err // it was caught before and passed on
	}
	return &Error{
		Class: Internal,
		Op:    "panic",
		Hint:  "Pando has a defect; the log shows where",
		Err:   &Panic{Value: v, Stack: string(debug.Stack())},
	}
}
