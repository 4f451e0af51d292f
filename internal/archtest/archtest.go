// Package archtest holds the house rules as tests: what a reader may rely on
// in every room, checked on the source itself. It has no code of its own.
package archtest
