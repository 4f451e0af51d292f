// Package bench measures Pando side by side with what users would pick instead, or
// with Pando without the thing that is measured: both in one run, by turns, so that
// what the machine does meanwhile falls on both. Ratios are what it shows; times are
// those of one machine. make bench runs it.
package bench
