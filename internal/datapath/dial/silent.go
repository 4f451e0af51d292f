package dial

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

const (
	// manySilent is how many dials in a row a target must leave without any answer to
	// be remembered as silent.
	manySilent = 16
	// silentFor is how long it is remembered after the last of them.
	silentFor = 5 * time.Second
	// probeGap is the time between two dials to a silent target.
	probeGap = time.Second
	// quietTime is how long a target may leave dials without an answer before it gets
	// a smaller part of all dials. A lost SYN is sent again after 1 s (RFC 6298 section
	// 2.1).
	quietTime = time.Second
	// fewDials is the number of dials below which their parts are not worth a bound.
	fewDials = 64
)

// silence knows which targets leave dials without an answer. The zero value is
// ready.
type silence struct {
	mu      sync.Mutex
	targets map[netip.AddrPort]*waiting
}

// waiting is what is known of a target while dials wait for it, or while it is
// remembered as silent.
type waiting struct {
	dials    int       // in progress
	heard    time.Time // when the target last answered, or when the first of the dials began
	timeouts int       // dials in a row that had no answer
	until    time.Time // zero, or until when the target is silent at least
	probed   time.Time // when a silent target was last dialled
}

// silent reports whether the target is silent. While a dial waits for its answer, it
// is not forgotten.
func (w *waiting) silent(now time.Time) bool {
	return !w.until.IsZero() && (w.dials > 0 || now.Before(w.until))
}

// part returns how many of most dials may wait for the target at a time. One that has
// not answered for a while gets a quarter, and none gets all of them.
func (w *waiting) part(most int, now time.Time) int {
	switch {
	case most < fewDials:
		return most
	case now.Sub(w.heard) < quietTime:
		return most - most/4
	}
	return most / 4
}

// begin counts a dial to addr, which must end with end. If the target is silent, or
// too many of most dials wait for it, begin counts nothing and returns a
// *silentError. Zero means that any number may wait.
func (s *silence) begin(addr netip.AddrPort, most int, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.targets[addr]
	if w == nil || w.dials == 0 && !w.silent(now) {
		w = &waiting{heard: now}
	}
	switch {
	case w.silent(now) && now.Sub(w.probed) < probeGap:
		return &silentError{
			timeouts: w.timeouts,
			quiet:    now.Sub(w.heard),
		}
	case w.silent(now):
		w.probed = now
	case most > 0 && w.dials >= w.part(most, now):
		return &silentError{
			waiting: w.dials,
			quiet:   now.Sub(w.heard),
		}
	}
	w.dials++
	if s.targets == nil {
		s.targets = map[netip.AddrPort]*waiting{}
	}
	s.targets[addr] = w
	return nil
}

// ending is how a dial ended.
type ending uint8

const (
	unknown  ending = iota // the dial says nothing of the target: it was canceled, or not sent
	answered               // the target or its network answered, as with a refusal
	timedOut
)

// end ends a dial that began at a time. A time-out counts if the dial has waited for
// least, and if no other dial had an answer meanwhile.
func (s *silence) end(addr netip.AddrPort, began time.Time, how ending, least time.Duration, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.targets[addr]
	switch {
	case how == answered:
		*w = waiting{dials: w.dials, heard: now}
	case how == timedOut && now.Sub(began) >= least && !w.heard.After(began):
		w.timeouts++
		if w.timeouts == manySilent {
			s.sweep(now) // others that are not dialled any more
		}
		if w.timeouts >= manySilent {
			w.until = now.Add(silentFor)
		}
	}
	w.dials--
	if w.dials == 0 && !w.silent(now) {
		s.forget(addr)
	}
}

// forget deletes what is known of addr. s.mu is held.
func (s *silence) forget(addr netip.AddrPort) {
	delete(s.targets, addr)
	if len(s.targets) == 0 {
		s.targets = nil // a map keeps its size
	}
}

// sweep forgets the targets that were silent and that are not dialled any more. s.mu
// is held.
func (s *silence) sweep(now time.Time) {
	for addr, w := range s.targets {
		if w.dials == 0 && !w.silent(now) {
			s.forget(addr)
		}
	}
}

// list returns the silent targets, in order.
func (s *silence) list(now time.Time) []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	var list []netip.AddrPort
	for addr, w := range s.targets {
		if w.silent(now) {
			list = append(list, addr)
		}
	}
	slices.SortFunc(list, netip.AddrPort.Compare)
	return list
}

// DescribeSilent describes targets that do not answer: named has the first of their
// addresses, and counted only says how many there are. Both are empty without targets.
func DescribeSilent(targets []netip.AddrPort) (named, counted string) {
	const shown = 3
	n := len(targets)
	if n == 0 {
		return "", ""
	}
	const text = "targets that do not answer, and are dialled only once a second:"
	named = text
	for _, a := range targets[:min(n, shown)] {
		named += " " + a.String()
	}
	if n > shown {
		named += fmt.Sprintf(" and %d more", n-shown)
	}
	return named, fmt.Sprintf("%s %d; pando status names them", text, n)
}

// silentError says why a target is not dialled.
type silentError struct {
	timeouts int           // of a silent target; zero if it is not silent
	waiting  int           // dials to a target that is not silent
	quiet    time.Duration // how long the target has not answered
}

func (e *silentError) Error() string {
	if e.timeouts > 0 {
		return fmt.Sprintf("not dialled: %d dials in a row had no answer for %v", e.timeouts, e.quiet.Round(time.Second))
	}
	return fmt.Sprintf("not dialled: %d dials wait for an answer for %v", e.waiting, e.quiet.Round(time.Second))
}

// classify returns the class and the hint. What is known of a silent target is a
// time-out, and not a lack of the replica.
func (e *silentError) classify() (flow.Class, string) {
	if e.timeouts > 0 {
		return flow.Timeout, fmt.Sprintf("the target did not answer %d connections in a row, for %v: until it answers, and for %v after the last of them, it is tried once a second; check that the target and its subnet router are up",
			e.timeouts, e.quiet.Round(time.Second), silentFor)
	}
	return flow.Overloaded, fmt.Sprintf("%d connections to this target are being opened, and it has not answered for %v: try again, and check that the target and its subnet router are up",
		e.waiting, e.quiet.Round(time.Second))
}
