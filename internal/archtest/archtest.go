// Package archtest has tests of the source itself. They keep the rules of the house:
// which package may import which, sizes, plain words. It has no code of its own.
package archtest
