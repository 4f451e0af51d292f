// Package bench compares Pando with what users would pick instead, or with Pando
// without the measured part. Both sides run in turn in one run, so that other work on
// the machine affects both. The result is a ratio. The times hold for one machine only.
// make bench runs it.
package bench
